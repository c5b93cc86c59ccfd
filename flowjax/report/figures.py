"""Figures of a sweep: one PNG per edge set."""

import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowjax.errors import FlowjaxError
from flowjax.files import atomically
from flowjax.report.curves import Curve, curves

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind readers."""

MOST_LINES = 7
"""More edges than this are drawn as a heat map."""

LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Lines also differ in dash and marker, so that they are told apart in grey."""


def draw_sweep(table: pa.Table, folder: Path) -> list[Path]:
    """Draw every edge set of a sweep's results into `folder`.

    Returns:
        The files, one PNG per edge set.

    Raises:
        FlowjaxError: the table has no rows, a sample lacks some windows, or an edge set's name
            cannot be a file name.
    """
    edge_sets: dict[str, list[Curve]] = {}
    for curve in curves(table):
        if not re.fullmatch(r"[\w-][\w.-]*", curve.edge_set):
            raise FlowjaxError(f"edge set {curve.edge_set!r} cannot be the name of a figure's file")
        edge_sets.setdefault(curve.edge_set, []).append(curve)
    folder.mkdir(parents=True, exist_ok=True)
    head = {name: _values(table, name) for name in ("model", "model_note", "width", "style")}
    paths = []
    for edge_set, lines in edge_sets.items():
        figure = _draw(edge_set, lines, head)
        path = folder / f"{edge_set}.png"
        atomically(
            path,
            lambda temporary, figure=figure: FigureCanvasAgg(figure).print_png(
                str(temporary), metadata={"Software": None}
            ),
        )
        paths.append(path)
    return paths


def _draw(edge_set: str, lines: Sequence[Curve], head: dict[str, str]) -> Figure:
    """Lines with bands; where there are too many to tell apart, a heat map of their means."""
    rows = len(lines)
    many = rows > MOST_LINES
    labels = [textwrap.fill(_label(curve), 90) for curve in lines]
    columns = 2 if rows > 1 and max(map(len, labels)) < 45 else 1
    legend = math.ceil(sum(label.count("\n") + 1 for label in labels) / columns)
    height = min(9.0, 1.6 + 0.16 * rows) if many else 3.7 + 0.15 * legend
    figure = Figure(figsize=(6.5, height), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    samples = max(curve.samples for curve in lines)
    width = "" if head["style"] in ("top_down", "bottom_up") else f"{head['width']} layers, "
    subtitle = f"n = {samples}, window {width}{head['style'].replace('_', '-')}"
    if many:
        _heat_map(figure, axes, lines)
    else:
        _lines(axes, lines, labels)
        subtitle += "; band: 95% bootstrap interval" if samples > 1 else "; one sample: no interval"
        box = figure.legend(loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
        for text in box.get_texts():
            text.set_parse_math(False)
    title = textwrap.fill(f"{edge_set}: {head['model']}", 75)
    figure.suptitle(title, fontsize=10, parse_math=False)
    if head["model_note"]:
        subtitle += "\n" + textwrap.fill(head["model_note"], 90)
    axes.set_title(subtitle, fontsize=8, color="0.3", parse_math=False)
    axes.set_xlabel("layer (centre of the window)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _lines(axes: Axes, lines: Sequence[Curve], labels: Sequence[str]) -> None:
    axes.axhline(0, color="0.4", linewidth=0.8)
    for index, (curve, label) in enumerate(zip(lines, labels, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        if curve.samples > 1:
            axes.fill_between(
                curve.layer, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0
            )
        axes.plot(
            curve.layer,
            curve.mean,
            color=colour,
            linestyle=LINES[index % len(LINES)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            linewidth=1.6,
            label=label,
        )
    axes.set_ylabel("change of answer probability (%)")
    axes.margins(x=0.02)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def _heat_map(figure: Figure, axes: Axes, lines: Sequence[Curve]) -> None:
    layers = np.unique(np.concatenate([curve.layer for curve in lines]))
    values = np.full((len(lines), len(layers)), np.nan)
    for row, curve in zip(values, lines, strict=True):
        row[np.searchsorted(layers, curve.layer)] = curve.mean
    most = float(np.nanmax(np.abs(values))) or 1.0
    image = axes.imshow(
        values,
        cmap="PuOr",
        vmin=-most,
        vmax=most,
        aspect="auto",
        interpolation="nearest",
        extent=(layers[0] - 0.5, layers[-1] + 0.5, len(lines) - 0.5, -0.5),
    )
    labels = [textwrap.shorten(_label(curve), 52, placeholder=" ...") for curve in lines]
    axes.set_yticks(range(len(lines)), labels, parse_math=False)
    axes.tick_params(axis="y", labelsize=max(3, min(7, 260 / len(lines))))
    figure.colorbar(image, ax=axes, label="change of answer probability (%)")


def _label(curve: Curve) -> str:
    return curve.label.replace("->", " \N{RIGHTWARDS ARROW} ").replace("_", " ")


def _values(table: pa.Table, column: str) -> str:
    """The distinct values of a column, joined."""
    return ", ".join(
        str(value) for value in np.unique(table[column].to_numpy(zero_copy_only=False))
    )
