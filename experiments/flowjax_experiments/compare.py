"""Two checkpoints of one architecture, such as an image model and the video model made from it.

Both answer the same questions. Cross-frame edges are cut in the first half of the layers, and in
all, for every question; the sweep runs on questions that both answer correctly, so that its curves
are paired over samples.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowjax.asked.asked import Asked, ask_sample
from flowjax.data.sample import Sample
from flowjax.edges import CROSS_FRAME, Edge, Knockout
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.models.loaded import LoadedModel
from flowjax.progress import Advance
from flowjax.report.arrays import BySample, beside, by_sample, distinct
from flowjax.report.canvas import BAND, SCORE, arrow, caption, count_of, headline, legend, sheet
from flowjax.report.marks import WINDOW as WINDOW_LABEL
from flowjax.report.marks import Line, draw_bars, draw_lines, zero_line
from flowjax.report.sign_flips import adjusted_p, with_p
from flowjax.report.statistics import (
    LEVEL,
    Interval,
    bootstrap_mean,
    mean_interval,
    paired_interval,
)
from flowjax.report.table import (
    BOOTSTRAP,
    JUDGED,
    LAYER,
    SHARES,
    Table,
    judged,
    mean,
    tested_note,
)
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Work
from flowjax.runs.columns import documented, shared_columns
from flowjax.runs.each_sample import is_chosen
from flowjax.runs.finished import Run
from flowjax.runs.settings import model_settings
from flowjax.sweeps.engine import mesh_of, planned
from flowjax.sweeps.protocol import Protocol, protocol
from flowjax.sweeps.rows import answer_texts, relative_change
from flowjax_experiments.anchor import EDGE_SETS, TwoSets
from flowjax_experiments.sweep import Edges, Window, fitted

SIDES = ("a", "b")
NONE, FIRST_HALF, ALL, WINDOW = "none", "first half", "all layers", "window"
"""Layers in which edges are cut."""

CUTS = (NONE, FIRST_HALF, ALL)
DRAWN = (
    "no edges cut",
    "cross-frame edges cut\nin the first half\nof the layers",
    "cross-frame edges cut\nin all layers",
)


@dataclass(frozen=True)
class Compare(Analysis):
    """The same knockouts on two checkpoints, paired over samples; accuracy without cross-frame."""

    SCHEMA = documented(
        ("side", pa.string(), "which model: a or b"),
        ("edge_set", pa.string(), "the edge set that the edge is reported under"),
        ("edge", pa.string(), "the edges cut, source->target, joined by +; empty if none"),
        ("cut", pa.string(), "the layers they are cut in: none, first half, all layers or window"),
        ("centre", pa.int32(), "the window's centre layer, 0-based; -1 for the other cuts"),
        ("width", pa.int32(), "the window's width in layers"),
        ("new_answer", pa.string(), "most probable next token with the edges cut"),
        ("new_id", pa.int32(), "its token id"),
        ("new_correct", pa.bool_(), "whether it is the true option's letter"),
        ("base_probability", pa.float64(), "probability of the base answer, 0 to 1"),
        ("new_probability", pa.float64(), "the same with the edges cut"),
        ("relative_change", pa.float64(), "(new - base) * 100 / base, percent"),
    )
    CHOSEN = "correct"

    other: Annotated[
        Path,
        Option("Another checkpoint of its architecture.", positional=True, decides=False),
    ]
    edges: TwoSets = ()
    edge: Edges = ()
    window: Window = None

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Ask both models, and sweep the samples that count for both."""
        other = load_model(self.other, mesh=mesh_of(loaded.model.decoder))
        models = loaded, other.reading(loaded.video).asked_by(loaded.prompt)
        _check_alike(*models)
        layers = loaded.config.decoder.layers
        sets = self.edges if self.edges or self.edge else EDGE_SETS
        sweep = protocol(sets, self.edge, width=fitted(self.window, layers))
        every = tuple(range(layers))
        cuts = {FIRST_HALF: every[: layers // 2], ALL: every}

        def measure(asked: Asked, _: Advance) -> Measured:
            both = asked, ask_sample(models[1], asked.sample)
            asking, rows = [], []
            for side, own in zip(SIDES, both, strict=True):
                edges = (Edge.CROSS_FRAME,)
                knockouts = [Knockout(edges, at) for at in cuts.values()]
                answers = planned(own.decoder, own.embedded, own.layout, knockouts)
                at = _Asking(side, own, answers.base, sweep.width)
                asking.append(at)
                logits = np.concatenate([answers.base[None], answers.collect(len(knockouts))])
                places = [("", "", NONE, -1), *(("cross-frame", CROSS_FRAME, c, -1) for c in cuts)]
                rows += at.rows(places, logits)
            if all(is_chosen(chosen, at.asked.is_correct(at.base_id)) for at in asking):
                for at in asking:
                    rows += at.swept(sweep)
            return Measured(None, lambda: rows)

        settings = {"edges": sets, "window": sweep.width, "other": model_settings(models[1])}
        return Work(measure, settings)

    @staticmethod
    def report(run: Run) -> Report:
        """How the models differ."""
        accuracy, found = cut_accuracies(run.rows), paired_curves(run.rows)
        called = ", ".join(names(run.rows).values())
        parts = [f"{accuracy[0].difference.n} samples; {called}", _accuracy_table(accuracy)]
        if found:
            parts.append(_curves_table(found))
        else:
            parts.append("No sample counts for both models (--samples), so no window was swept.")
        figures = {"accuracy": _accuracy(run.rows, accuracy)}
        return Report(parts, figures | ({"curves": _curves(run.rows, found)} if found else {}))


@dataclass(frozen=True, eq=False)
class _Asking:
    """One model at work on one sample; base: its logits without a knockout."""

    side: str
    asked: Asked
    base: Float[Array, " vocabulary"]
    width: int

    @property
    def base_id(self) -> int:
        return int(jnp.argmax(self.base))

    def swept(self, sweep: Protocol) -> list[dict[str, Any]]:
        decoder, layout = self.asked.decoder, sweep.layout(self.asked.layout)
        cells = sweep.cells(layout, decoder.config.layers, decoder.config.heads)
        knockouts = [cell.knockout for cell in cells]
        answers = planned(decoder, self.asked.embedded, layout, knockouts)
        places = [(cell.edge_set, cell.knockout.name, WINDOW, cell.centre) for cell in cells]
        return self.rows(places, answers.collect(len(cells)))

    def rows(
        self, places: Sequence[tuple[str, str, str, int]], logits: Float[np.ndarray, "k vocabulary"]
    ) -> list[dict[str, Any]]:
        """A row per place: edge set, edge, cut and centre."""
        base = float(jax.nn.softmax(self.base)[self.base_id])
        new = np.asarray(jax.nn.softmax(jnp.asarray(logits))[:, self.base_id], np.float64)
        ids = logits.argmax(axis=1)
        texts = answer_texts(self.asked.model.tokenizer, ids)
        shared = shared_columns(self.asked, self.base_id)
        shared |= {"side": self.side, "width": self.width, "base_probability": base}
        return [
            {
                **shared,
                **dict(zip(("edge_set", "edge", "cut", "centre"), place, strict=True)),
                "new_answer": answer,
                "new_id": int(new_id),
                "new_correct": self.asked.is_correct(int(new_id)),
                "new_probability": float(probability),
                "relative_change": float(change),
            }
            for place, answer, new_id, probability, change in zip(
                places, texts, ids, new, relative_change(base, new), strict=True
            )
        ]


def _check_alike(a: LoadedModel, b: LoadedModel) -> None:
    """Refuse models whose layers cannot be compared one by one."""
    if a.path.resolve() == b.path.resolve():
        raise FlowjaxError(f"{a.path} is given twice; compare two checkpoints")
    if type(a.config) is not type(b.config):
        raise FlowjaxError(f"{a.path} and {b.path} are models of different kinds")
    different = [
        field.name
        for field in dataclasses.fields(a.config)
        if getattr(a.config, field.name) != getattr(b.config, field.name)
    ]
    if different:
        raise FlowjaxError(
            f"{a.path} and {b.path} differ in {', '.join(different)}; only checkpoints of one "
            "architecture can be compared layer by layer"
        )


@dataclass(frozen=True, eq=False)
class PairedCurve:
    """An edge's relative change of the answer's probability in both models, in percent.

    layer: 1-based centre of each window.
    values: of each side, float64 [samples, layers], the same samples in the same order.
    low, high: ends of the pointwise paired 95% interval of b - a.
    p: of b - a, adjusted for all windows of all edges.
    """

    edge_set: str
    edge: str
    layer: tuple[int, ...]
    values: Mapping[str, Float[np.ndarray, "samples layers"]]
    low: Float[np.ndarray, " layers"]
    high: Float[np.ndarray, " layers"]
    p: Float[np.ndarray, " layers"]

    @property
    def samples(self) -> int:
        """How many."""
        return len(self.values["a"])

    def mean(self, side: str) -> Float[np.ndarray, " layers"]:
        """Of one model."""
        return self.values[side].mean(axis=0)

    def difference(self, index: int) -> Interval:
        """b - a at one window."""
        gap = float((self.values["b"] - self.values["a"])[:, index].mean())
        ends = (float(values[index]) for values in (self.low, self.high, self.p))
        return Interval(self.samples, gap, *ends)

    @property
    def widest(self) -> int:
        """The index of the window where the models differ most."""
        return int(np.argmax(np.abs(self.mean("b") - self.mean("a"))))


@dataclass(frozen=True)
class CutAccuracy:
    """Accuracy of both models with cross-frame edges cut in some layers.

    accuracy: of each side, with a score interval.
    change: accuracy minus that without a cut, paired, of each side.
    difference: change of b - change of a, paired.
    """

    cut: str
    accuracy: Mapping[str, Interval]
    change: Mapping[str, Interval]
    difference: Interval


def paired_curves(table: pa.Table) -> list[PairedCurve]:
    """Every edge's curves, in the order of the rows; empty where no sample was swept.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    rows = table.filter(pc.field("cut") == WINDOW)
    out, gaps = [], []
    for edge_set, edge in distinct(rows, "edge_set", "edge"):
        of_edge = rows.filter((pc.field("edge_set") == edge_set) & (pc.field("edge") == edge))
        found = by_sample(of_edge, "relative_change", "side", "centre")
        a, b = found.values[:, 0], found.values[:, 1]
        gaps.append(BySample(found.samples, found.axes[1:], b - a))
        _, low, high = bootstrap_mean(b - a)
        layers = tuple(centre + 1 for centre in found.axes[1])
        out.append((edge_set, edge, layers, {"a": a, "b": b}, low, high))
    p = iter(adjusted_p(beside(gaps)) if gaps else ())
    return [
        PairedCurve(edge_set, edge, layers, values, low, high, np.array(list(islice(p, len(low)))))
        for edge_set, edge, layers, values, low, high in out
    ]


def cut_accuracies(table: pa.Table) -> list[CutAccuracy]:
    """Accuracy without a cut, with one in the first half of the layers, and in all.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    rows = table.filter(pc.field("cut") != WINDOW)
    right = by_sample(rows, "new_correct", "cut", "side")
    of = {cut: right.values[:, right.axes[0].index(cut)].astype(bool) for cut in CUTS}
    changes = {cut: of[cut].astype(np.float64) - of[NONE] for cut in CUTS}
    tests = np.stack([np.column_stack([c, c[:, 1] - c[:, 0]]) for c in changes.values()], axis=1)
    out = []
    for cut, p in zip(CUTS, adjusted_p(tests).tolist(), strict=True):
        change = [paired_interval(of[cut][:, i], of[NONE][:, i]) for i, _ in enumerate(SIDES)]
        difference = paired_interval(changes[cut][:, 1], changes[cut][:, 0])
        *change, difference = map(with_p, [*change, difference], p)
        accuracy = {s: mean_interval(of[cut][:, i]) for i, s in enumerate(SIDES)}
        by_side: dict[str, Interval] = dict(zip(SIDES, change, strict=True))
        out.append(CutAccuracy(cut, accuracy, by_side, difference))
    return out


def names(table: pa.Table) -> dict[str, str]:
    """What each side is called: its letter and its model's name."""
    return {side: f"{side.upper()}: {model}" for side, model in distinct(table, "side", "model")}


def _accuracy_table(found: list[CutAccuracy]) -> Table:
    rows = []
    for at in found:
        for side in SIDES:
            change = judged(at.change[side], "+.3f") if at.cut != NONE else []
            rows.append([at.cut, side.upper(), *mean(at.accuracy[side], ".3f"), *change])
        if at.cut != NONE:
            rows.append([at.cut, "B - A", "", "", *judged(at.difference, "+.3f")])
    return Table(
        "Accuracy with cross-frame edges cut, and what the cut changes",
        ["cut in", "model"],
        ["accuracy", "95% interval", "change", *JUDGED],
        rows,
        tested_note("all six", f"{SHARES}, of B - A {BOOTSTRAP}"),
    )


def _curves_table(found: list[PairedCurve]) -> Table:
    rows = []
    for curve in found:
        at = curve.widest
        sides = [f"{curve.mean(side)[at]:+.1f}" for side in SIDES]
        gap = judged(curve.difference(at), "+.1f")
        rows.append([curve.edge_set, curve.edge, str(curve.layer[at]), *sides, *gap])
    return Table(
        f"Window where the change of the answer's probability differs most, n = {found[0].samples}",
        ["edge set", "edge cut"],
        [LAYER, "A %", "B %", "B - A", *JUDGED],
        rows,
        tested_note(f"all {sum(len(curve.layer) for curve in found)} windows of all edges"),
    )


def _accuracy(table: pa.Table, found: list[CutAccuracy]) -> Figure:
    figure, (axes,) = sheet(width=6, height=3.9)
    groups = [
        (called, [at.accuracy[side] for at in found], SIDES.index(side))
        for side, called in names(table).items()
    ]
    draw_bars(axes, DRAWN, groups)
    axes.set_ylabel("accuracy")
    legend(figure, axes)
    said = f"n = {found[0].accuracy['a'].n}; bar: {SCORE}"
    headline(figure, "Accuracy without cross-frame edges", said, table)
    return figure


def _curves(table: pa.Table, found: list[PairedCurve]) -> Figure:
    across = min(3, len(found))
    height = 1.7 + 2.5 * math.ceil(len(found) / across)
    figure, panels = sheet(len(found), width=1.5 + 3.1 * across, height=height, across=across)
    called = names(table)
    for axes, curve in zip(panels, found, strict=True):
        lines = [Line(called[s], curve.values[s], index) for index, s in enumerate(SIDES)]
        draw_lines(axes, [layer - 1 for layer in curve.layer], lines, label=WINDOW_LABEL)
        zero_line(axes)
        _mark(axes, curve)
        caption(axes, arrow(curve.edge))
        axes.tick_params(labelsize=8)
    for axes in panels[::across]:
        axes.set_ylabel("change of answer\nprobability (%)", fontsize=8)
    legend(figure, panels[0])
    n, width = found[0].samples, table["width"][0].as_py()
    said = f"samples that count for both; windows of {width} layers; "
    said += count_of(n, f"{BAND}; grey mark: B - A is an effect, adjusted p < {LEVEL:g}")
    headline(figure, "Change of the answer's probability by a knockout", said, table)
    return figure


def _mark(axes: Axes, curve: PairedCurve) -> None:
    """A mark on the lower edge under every layer where the models differ."""
    where = [layer for index, layer in enumerate(curve.layer) if curve.difference(index).is_effect]
    if not where:
        return  # an empty line has no place, which the layout cannot take
    axes.plot(
        where,
        np.zeros(len(where)),
        "s",
        color="0.35",
        markersize=4,
        clip_on=False,
        transform=axes.get_xaxis_transform(),
    )
