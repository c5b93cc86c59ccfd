"""Two models on the same samples: curves with paired differences, and accuracy without edges."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowjax.report.arrays import by_sample
from flowjax.report.canvas import (
    INTERVAL,
    Line,
    draw_lines,
    drawable,
    head,
    legend,
    save_figure,
    tidy,
)
from flowjax.report.figures import COLOURS
from flowjax.report.statistics import (
    Interval,
    bootstrap_mean,
    mean_interval,
    paired_interval,
    proportion_interval,
)

SIDES = ("a", "b")
NONE, FIRST_HALF, ALL, WINDOW = "none", "first half", "all layers", "window"
"""Layers in which edges are cut."""

CUTS = (NONE, FIRST_HALF, ALL)


@dataclass(frozen=True, eq=False)
class PairedCurve:
    """An edge's relative change of the answer's probability in both models, in percent.

    layer: 1-based centre of each window.
    values: of each side, float64 [samples, layers], the same samples in the same order.
    low, high: ends of the paired 95% interval of b - a.
    """

    edge_set: str
    edge: str
    layer: tuple[int, ...]
    values: Mapping[str, Float[np.ndarray, "samples layers"]]
    low: Float[np.ndarray, " layers"]
    high: Float[np.ndarray, " layers"]

    @property
    def samples(self) -> int:
        """How many."""
        return len(self.values["a"])

    def mean(self, side: str) -> Float[np.ndarray, " layers"]:
        """Of one model."""
        return self.values[side].mean(axis=0)

    def difference(self, index: int) -> Interval:
        """b - a at one window."""
        mean = float((self.values["b"] - self.values["a"])[:, index].mean())
        return Interval(self.samples, mean, float(self.low[index]), float(self.high[index]))

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
    out = []
    for key in rows.group_by(["edge_set", "edge"], use_threads=False).aggregate([]).to_pylist():
        of_edge = rows.filter(
            (pc.field("edge_set") == key["edge_set"]) & (pc.field("edge") == key["edge"])
        )
        found = by_sample(of_edge, "relative_change", "side", "centre")
        a, b = found.values[:, 0], found.values[:, 1]
        _, low, high = bootstrap_mean(b - a)
        layers = tuple(centre + 1 for centre in found.axes[1])
        values = {"a": a, "b": b}
        out.append(PairedCurve(key["edge_set"], key["edge"], layers, values, low, high))
    return out


def cut_accuracies(table: pa.Table) -> list[CutAccuracy]:
    """Accuracy without a cut, with one in the first half of the layers, and in all.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    rows = table.filter(pc.field("cut") != WINDOW)
    right = by_sample(rows, "new_correct", "cut", "side")
    of = {cut: right.values[:, right.axes[0].index(cut)] for cut in CUTS}
    out = []
    for cut in CUTS:
        change = of[cut] - of[NONE]
        n = len(change)
        out.append(
            CutAccuracy(
                cut,
                {s: proportion_interval(int(of[cut][:, i].sum()), n) for i, s in enumerate(SIDES)},
                {s: mean_interval(change[:, i]) for i, s in enumerate(SIDES)},
                paired_interval(change[:, 1], change[:, 0]),
            )
        )
    return out


def names(table: pa.Table) -> dict[str, str]:
    """What each side is called: its letter and its model's name."""
    rows = table.select(["side", "model"]).group_by(["side", "model"]).aggregate([]).to_pylist()
    return {row["side"]: f"{row['side'].upper()}: {row['model']}" for row in rows}


def draw_compare(table: pa.Table, folder: Path) -> list[Path]:
    """Draw both models' curves, and their accuracy without cross-frame edges, into `folder`.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    paths = [save_figure(_accuracy(table), folder / "accuracy.png")]
    found = paired_curves(table)
    if found:
        paths.append(save_figure(_curves(table, found), folder / "curves.png"))
    return paths


def _accuracy(table: pa.Table) -> Figure:
    figure = Figure(figsize=(6, 3.9), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    called = names(table)
    found = cut_accuracies(table)
    for index, side in enumerate(SIDES):
        intervals = [at.accuracy[side] for at in found]
        mean = np.array([interval.mean for interval in intervals])
        ends = np.array([[i.mean - i.low, i.high - i.mean] for i in intervals]).T
        axes.bar(
            np.arange(len(found)) + 0.38 * (index - 0.5),
            mean,
            width=0.34,
            color=COLOURS[index],
            yerr=np.maximum(ends, 0),
            error_kw={"elinewidth": 1},
            label=drawable(called[side]),
        )
    labels = ["no edges cut", "cross-frame edges cut\nin the first half\nof the layers"]
    axes.set_xticks(range(len(found)), [*labels, "cross-frame edges cut\nin all layers"])
    axes.tick_params(axis="x", labelsize=8, length=0)
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    tidy(axes)
    legend(figure, axes)
    n = found[0].accuracy["a"].n
    head(figure, "Accuracy without cross-frame edges", f"n = {n}; bar: 95% score interval", table)
    return figure


def _curves(table: pa.Table, found: list[PairedCurve]) -> Figure:
    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(1.5 + 3.1 * columns, 1.7 + 2.5 * rows), dpi=200, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    called = names(table)
    for axes, curve in zip(panels, found, strict=False):
        lines = [
            Line(drawable(called[side]), curve.values[side], index)
            for index, side in enumerate(SIDES)
        ]
        draw_lines(axes, [layer - 1 for layer in curve.layer], lines)
        axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        _mark(axes, curve)
        title = curve.edge.replace("->", " \N{RIGHTWARDS ARROW} ")
        axes.set_title(drawable(title.replace("_", " ")), fontsize=8, color="0.3", parse_math=False)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("layer (centre of the window)", fontsize=8)
    for axes in panels[len(found) :]:
        axes.remove()
    for axes in panels[::columns]:
        axes.set_ylabel("change of answer\nprobability (%)", fontsize=8)
    legend(figure, panels[0])
    width = table["width"][0].as_py()
    n = found[0].samples
    said = f"n = {n} samples that count for both; windows of {width} layers; "
    said += (
        f"{INTERVAL}; grey mark: the paired interval of B - A excludes 0"
        if n > 1
        else "one sample: no interval"
    )
    head(figure, "Change of the answer's probability by a knockout", said, table)
    return figure


def _mark(axes: Axes, curve: PairedCurve) -> None:
    """A mark on the lower edge under every layer where the models differ."""
    where = [
        layer for index, layer in enumerate(curve.layer) if curve.difference(index).excludes_zero
    ]
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
