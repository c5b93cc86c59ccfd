"""Information flow: knockout sweeps over the paper's edge sets (section 4 of the paper)."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from flowjax.compilation import use_persistent_cache
from flowjax.data.prompt import Question
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.report.curves import strongest
from flowjax.report.figures import draw_sweep
from flowjax.sweep.protocol import protocol
from flowjax.sweep.run import sweep
from flowjax.sweep.sample import Sample


def sweep_one(
    model: Path,
    *,
    video: Path,
    question: str,
    options: Sequence[str],
    answer: str,
    out: Path,
    edge_sets: Sequence[str],
    edges: Sequence[str],
    width: int,
    style: str,
    overwrite: bool,
) -> None:
    """Sweep one question about one video, then draw and print what was found.

    Raises:
        FlowjaxError: a bad input.
    """
    use_persistent_cache()
    asked = protocol(edge_sets, edges, width=width, style=style)
    sample = Sample(video.name, "", video, Question(question, tuple(options), answer))
    sweep(load_model(model), [sample], asked, out, overwrite=overwrite)
    report(out)


def report(run: Path) -> None:
    """Draw the figures of a finished run and print its strongest windows.

    Raises:
        FlowjaxError: the folder has no `results.parquet` that can be read.
    """
    path = run / "results.parquet"
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise FlowjaxError(f"{path} is missing; {run} is not a finished sweep") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise FlowjaxError(f"{path} cannot be read: {error}") from None
    figures = draw_sweep(table, run / "figures")
    print_summary(table)
    print(f"\nrows     {path} ({table.num_rows})")
    for figure in figures:
        print(f"figure   {figure}")


def print_summary(table: pa.Table) -> None:
    """The window of every edge that changes the answer's probability most."""
    samples = table["sample_id"].unique()
    correct = len(set(table.filter(table["correct"])["sample_id"].to_pylist()))
    notes = [note for note in table["model_note"].unique().to_pylist() if note]
    print(f"{len(samples)} samples, {correct} answered correctly")
    for note in notes:
        print(f"NOTE: {note}")
    shown = Table(title="Window with the largest mean change of the answer's probability")
    for name in ("edge set", "edge cut", "layer", "change %", "95% interval", "excludes 0"):
        shown.add_column(name, justify="left" if name.startswith("edge") else "right")
    for row in strongest(table):
        interval = row.interval
        shown.add_row(
            row.edge_set,
            row.edge,
            str(row.layer),
            f"{interval.mean:+.1f}",
            f"[{interval.low:+.1f}, {interval.high:+.1f}]" if interval.n > 1 else "one sample",
            "yes" if interval.excludes_zero else "no",
        )
    Console(width=None if Console().is_terminal else 110).print(shown)
