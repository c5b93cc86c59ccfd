"""Information flow: knockout sweeps over the paper's edge sets (section 4 of the paper)."""

import dataclasses
import functools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import pyarrow as pa
import pyarrow.compute as pc

from flowjax.asked.asked import Asked, ask_sample
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.layer_windows import windows
from flowjax.layout import TokenLayout
from flowjax.models.checkpoint import load_model
from flowjax.models.loaded import LoadedModel
from flowjax.progress import Advance
from flowjax.report.curves import strongest_table
from flowjax.report.figures import draw_accuracy, draw_sweep, draw_tasks
from flowjax.report.page import flow
from flowjax.report.page.sample import OnSample
from flowjax.report.page.section import Section
from flowjax.report.reference import write_records
from flowjax.report.table import Table
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Work
from flowjax.runs.finished import Run, run_labels
from flowjax.runs.selection import Selection
from flowjax.sweeps.engine import planned
from flowjax.sweeps.plan import Flops, Plan, footprint, plan_sweep
from flowjax.sweeps.protocol import Cell, Protocol, fitting_width, protocol
from flowjax.sweeps.rows import SCHEMA
from flowjax.sweeps.run import measure
from flowjax_experiments.on_sample import OF_TOKENS, about, of_sample, tokens_cut

Edges = Annotated[
    tuple[str, ...],
    Option(
        "An edge of your own, such as 'frame_0->question_stem'; several at once as a+b; "
        "'question_stem[*]' is each of its tokens."
    ),
]
Window = Annotated[
    int | None,
    Option("Layers cut at a time. Default: 9, or what fits a model of fewer than 18 layers."),
]


@dataclass(frozen=True)
class Sweep(Analysis):
    """Cut attention edges in every window of layers and watch the answer's probability."""

    SCHEMA = SCHEMA
    ACROSS = True
    CHOSEN = "correct"
    CUTS = True

    edges: Annotated[tuple[str, ...], Option("An edge set of the paper. Default: all four.")] = ()
    edge: Edges = ()
    heads: Annotated[
        str | None, Option("Cut heads one by one: all, or numbers such as 0,3,5 (from 0).")
    ] = None
    window: Window = None
    style: Annotated[str, Option("center, inverse, top_down or bottom_up.")] = "center"
    centres: Annotated[
        str | None,
        Option("Centres of the windows, from 0, such as 3,7,11 or 4-9. Default: every layer."),
    ] = None
    memory: Annotated[
        str | None,
        Option("Device memory for kept states and one batch, such as 8GB.", decides=False),
    ] = None
    plan: Annotated[
        bool, Option("Print what the first question costs and stop.", "--plan", decides=False)
    ] = False

    def protocol(self, layers: int) -> Protocol:
        """Edges and windows, for a model of so many layers.

        Raises:
            FlowjaxError: see `flowjax.sweeps.protocol.protocol` and `fitted`.
        """
        width = fitted(self.window, layers, self.style)
        return protocol(
            self.edges,
            self.edge,
            width=width,
            style=self.style,
            heads=self.heads,
            centres=self.centres,
        )

    @property
    def budget(self) -> int | None:
        """Bytes."""
        return None if self.memory is None else parse_bytes(self.memory)

    def preview(self, model: Path, questions: Selection) -> bool:
        """With `--plan`, what a sweep costs, without reading the model's parameters."""
        if self.plan:
            loaded = load_model(model, parameters=False)
            loaded = loaded.reading(questions.reading).asked_by(questions.prompt)
            print_plan(self, loaded, questions.read()[0])
        return self.plan

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """See `flowjax.sweeps.run.measure`."""
        swept = self.protocol(loaded.config.decoder.layers)
        engine = functools.partial(planned, budget=self.budget)

        def one(asked: Asked, advance: Advance) -> Measured:
            answer, rows = measure(asked, swept, engine=engine, advance=advance)

            def flops() -> Flops:
                return make_plan(swept, loaded, asked.layout, self.budget)[1].flops

            return Measured(answer, rows, flops)

        return Work(one, {"window": swept.width})

    @staticmethod
    def write_reference(run: Run) -> list[Path]:
        """Into the folder `reference`; see `flowjax.report.reference`."""
        return write_records(run.rows, run.path / "reference")

    @staticmethod
    def report(run: Run) -> Report:
        """The window of every edge that changes the answer's probability most."""
        samples = run.rows["sample_id"].unique()
        correct = run.rows.filter(run.rows["correct"])["sample_id"].unique()
        said = f"{len(samples)} samples, {len(correct)} answered correctly"
        title = "Window with the largest mean change of the answer's probability"
        figures = draw_sweep(run.rows) | draw_accuracy(run.rows) | draw_tasks(run.rows)
        return Report([said, *strongest_table(title, run.rows)], figures)

    @classmethod
    def sections(cls, runs: Sequence[Run]) -> list[Section]:
        """The flow map, the curves, and two models beside each other.

        Single tokens, of which every sample has others, are shown on a sample alone.
        """
        every = [dataclasses.replace(run, rows=_without_tokens(run.rows)) for run in runs]
        shown = [run for run in every if run.rows.num_rows]
        swept = zip(run_labels(shown), shown, strict=True)
        return flow.sections([flow.Swept(name, run.rows) for name, run in swept]) if shown else []

    @staticmethod
    def on_sample(run: Run, sample_id: str) -> OnSample | None:
        """What cutting its single tokens changes, where they were cut."""
        rows = of_sample(run.rows, sample_id, *OF_TOKENS)
        cut = [] if rows is None else tokens_cut(rows)
        return dataclasses.replace(about(rows), tokens=cut) if rows is not None and cut else None


def _without_tokens(rows: pa.Table) -> pa.Table:
    """The rows whose edges name no single token; not copied where they all are."""
    edges = rows["edge"].unique().to_pylist()
    whole = [edge for edge in edges if "[" not in edge]
    if not whole:
        return rows.slice(0, 0)
    return rows if whole == edges else rows.filter(pc.field("edge").isin(whole))


def fitted(window: int | None, layers: int, style: str = "center") -> int:
    """Layers of a window; if none are asked for, as many as fit, which is said.

    Raises:
        FlowjaxError: a window that the model has no room for, or an unknown style.
    """
    width = fitting_width(layers) if window is None else window
    windows(width, style, layers)
    if window is None and width != Protocol.width:
        said = f"windows of {width} layers, for the model has {layers}; --window sets another"
        print(said, file=sys.stderr)
    return width


def make_plan(
    chosen: Protocol, loaded: LoadedModel, layout: TokenLayout, budget: int | None
) -> tuple[tuple[Cell, ...], Plan]:
    """The knockouts of a prompt and their plan; `loaded` needs no parameters.

    Raises:
        FlowjaxError: see `Protocol.cells` and `plan_sweep`.
    """
    decoder = loaded.config.decoder
    layout = chosen.layout(layout)
    cells = chosen.cells(layout, decoder.layers, decoder.heads)
    feet = [footprint(layout, cell.knockout) for cell in cells]
    value_bytes = loaded.model.dtype.itemsize
    return cells, plan_sweep(
        layout.length,
        feet,
        decoder,
        value_bytes=value_bytes,
        budget=budget,
        kernel=loaded.model.decoder.kernel_for(layout.length) is not None,
        platform=jax.default_backend(),
    )


def print_plan(sweep: Sweep, loaded: LoadedModel, sample: Sample) -> None:
    """Print what a sweep costs; `loaded` needs no parameters.

    Raises:
        FlowjaxError: a bad input.
    """
    layout = ask_sample(loaded, sample).layout
    layers = loaded.config.decoder.layers
    cells, plan = make_plan(sweep.protocol(layers), loaded, layout, sweep.budget)
    flops = plan.flops
    print(f"{len(cells)} knockouts of {layout.length} positions in {layers} layers")
    for name, value, of in (
        ("naive", flops.naive, "a full forward each"),
        ("planned", flops.planned, f"{flops.naive / flops.planned:.1f} times less"),
        ("bound", flops.bound, f"planned is {flops.planned / flops.bound:.3f} times this"),
    ):
        print(f"{name:8} {value:.3e} FLOPs  {of}")
    print(f"memory   {plan.bytes / 1e9:.2f} GB beside the parameters")
    rows = []
    for shape in dict.fromkeys(batch.shape for batch in plan.batches):
        alike = [batch for batch in plan.batches if batch.shape == shape]
        starts = sorted({batch.start + 1 for batch in alike})
        size, count, prefix = shape
        span = f"{starts[0]}-{starts[-1]}" if len(starts) > 1 else str(starts[0])
        rows.append([*map(str, (count, prefix, size, len(alike))), span])
    numbers = ["rows", "kept rows read", "windows at once", "batches", "from layers (from 1)"]
    title = f"{len(plan.batches)} batches, {plan.shapes + 1} compiled functions"
    Table(title, [], numbers, rows).print()


def parse_bytes(text: str) -> int:
    """Read a size such as `"8GB"` or `"500MB"` (powers of ten).

    Raises:
        FlowjaxError: the text has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)B?", text.strip())
    if match is None or float(match[1]) == 0:
        raise FlowjaxError(f"--memory {text!r}: write a size such as 8GB or 500MB")
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2].replace("K", "k") or " "))
