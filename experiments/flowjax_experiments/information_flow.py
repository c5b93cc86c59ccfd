"""Information flow: knockout sweeps over the paper's edge sets (section 4 of the paper)."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from flowjax.asked.asked import ask_sample
from flowjax.compilation import use_persistent_cache
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.models.sharding import DATA, MODEL
from flowjax.report.curves import strongest
from flowjax.report.figures import draw_sweep
from flowjax.sweeps.engine import planned
from flowjax.sweeps.plan import footprint, plan_sweep
from flowjax.sweeps.protocol import Protocol, protocol
from flowjax.sweeps.run import sweep
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

SHOWN = 20
"""Edges in the printed summary, those with the largest change first."""


@dataclass(frozen=True)
class Asked:
    """A sweep, as the command line gives it.

    memory: such as "8GB"; mesh: such as "4x2"; both None for no limit and one device.
    """

    model: Path
    questions: Selection
    edge_sets: tuple[str, ...]
    edges: tuple[str, ...]
    width: int
    style: str
    heads: str | None
    memory: str | None
    mesh: str | None

    @property
    def protocol(self) -> Protocol:
        """Edges and windows."""
        return protocol(
            self.edge_sets, self.edges, width=self.width, style=self.style, heads=self.heads
        )

    @property
    def budget(self) -> int | None:
        """Bytes."""
        return None if self.memory is None else parse_bytes(self.memory)


def run(asked: Asked, out: Path, *, overwrite: bool) -> None:
    """Sweep the questions (by default those answered correctly), draw and print what was found.

    Raises:
        FlowjaxError: a bad input.
    """
    use_persistent_cache()
    chosen, samples = asked.protocol, asked.questions.read()
    engine = functools.partial(planned, budget=asked.budget)
    mesh = None if asked.mesh is None else device_mesh(asked.mesh)
    loaded = load_model(asked.model, mesh=mesh)
    sweep(
        loaded,
        samples,
        chosen,
        out,
        chosen=asked.questions.chosen("correct"),
        strict=asked.questions.strict or asked.questions.one,
        overwrite=overwrite,
        engine=engine,
    )
    report(out)


def print_plan(asked: Asked) -> None:
    """Print what a sweep costs, without reading the model's parameters.

    Raises:
        FlowjaxError: a bad input.
    """
    chosen, sample = asked.protocol, asked.questions.read()[0]
    loaded = load_model(asked.model, parameters=False)
    decoder = loaded.config.decoder
    layout = chosen.layout(ask_sample(loaded, sample).prompt.layout)
    cells = chosen.cells(layout, decoder.layers, decoder.heads)
    plan = plan_sweep(
        layout.length,
        [footprint(layout, cell.knockout) for cell in cells],
        decoder,
        value_bytes=loaded.model.dtype.itemsize,
        budget=asked.budget,
    )
    flops = plan.flops
    print(f"{len(cells)} knockouts of {layout.length} positions in {decoder.layers} layers")
    for name, value, of in (
        ("naive", flops.naive, "a full forward each"),
        ("planned", flops.planned, f"{flops.naive / flops.planned:.1f} times less"),
        ("bound", flops.bound, f"planned is {flops.planned / flops.bound:.3f} times this"),
    ):
        print(f"{name:8} {value:.3e} FLOPs  {of}")
    print(f"memory   {plan.bytes / 1e9:.2f} GB beside the parameters")
    shown = Table(title=f"{len(plan.batches)} batches, {plan.shapes + 1} compiled functions")
    for name in ("rows", "kept rows read", "windows at once", "batches", "from layers"):
        shown.add_column(name, justify="right")
    for shape in dict.fromkeys(batch.shape for batch in plan.batches):
        alike = [batch for batch in plan.batches if batch.shape == shape]
        starts = sorted({batch.start for batch in alike})
        size, rows, prefix = shape
        span = f"{starts[0]}-{starts[-1]}" if len(starts) > 1 else str(starts[0])
        shown.add_row(str(rows), str(prefix), str(size), str(len(alike)), span)
    Console(width=None if Console().is_terminal else 110).print(shown)


def parse_bytes(text: str) -> int:
    """Read a size such as `"8GB"` or `"500MB"` (powers of ten).

    Raises:
        FlowjaxError: the text has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)B?", text.strip())
    if match is None or float(match[1]) == 0:
        raise FlowjaxError(f"--memory {text!r}: write a size such as 8GB or 500MB")
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2].replace("K", "k") or " "))


def device_mesh(text: str) -> Mesh:
    """All devices as `"DATAxMODEL"`.

    Raises:
        FlowjaxError: the text has another form, or another number of devices.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    devices = jax.devices()
    if match is None or int(match[1]) * int(match[2]) != len(devices):
        raise FlowjaxError(
            f"--mesh {text!r}: write DATAxMODEL, whose product is the number of devices, "
            f"{len(devices)}"
        )
    grid = np.array(devices).reshape(int(match[1]), int(match[2]))
    return Mesh(grid, (DATA, MODEL))


def report(run: Path) -> None:
    """Draw the figures of a finished run and print its strongest windows.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table = read_results(run)
    figures = draw_sweep(table, run / "figures")
    print_summary(table)
    print_failures(run)
    print(f"\nrows     {run / 'results.parquet'} ({table.num_rows})")
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
    rows = sorted(strongest(table), key=lambda row: -abs(row.interval.mean))
    for row in rows[:SHOWN]:
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
    if len(rows) > SHOWN:
        print(f"... and {len(rows) - SHOWN} more edges")
