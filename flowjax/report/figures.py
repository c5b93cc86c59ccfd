"""Figures of a sweep: one per edge set."""

import math
import re
import textwrap
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowjax.errors import FlowjaxError
from flowjax.report.arrays import by_sample, distinct, grouped
from flowjax.report.canvas import (
    BAND,
    SCORE,
    arrow,
    caption,
    count_of,
    headline,
    inner_legend,
    legend,
    sheet,
)
from flowjax.report.curves import Curve, curves
from flowjax.report.marks import WINDOW, draw_heat, draw_line, layer_axis, tidy, zero_line

MOST_LINES = 7
"""More edges than this are drawn as a heat map."""

CHANGE = "change of answer probability (%)"

RIGHT = "new_correct"
"""The column of whether the answer with the edges cut is right."""


def draw_sweep(
    table: pa.Table, said: str = "", label: str = CHANGE, *, column: str = "relative_change"
) -> dict[str, Figure]:
    """A figure for every edge set of a sweep's results, by its name.

    Args:
        table: the rows.
        said: beside the number of samples and the windows, which the figure tells.
        label: of the vertical axis.
        column: see `curves`.

    Raises:
        FlowjaxError: the table has no rows, a sample lacks some windows, or an edge set's name
            cannot be a file name.
    """
    edge_sets: dict[str, list[Curve]] = {}
    for curve in curves(table, column):
        if not re.fullmatch(r"[\w-][\w.-]*", curve.edge_set):
            raise FlowjaxError(f"edge set {curve.edge_set!r} cannot be the name of a figure's file")
        edge_sets.setdefault(curve.edge_set, []).append(curve)
    return {
        name: _draw(name, lines, table, said, label, column) for name, lines in edge_sets.items()
    }


def draw_accuracy(table: pa.Table) -> dict[str, Figure]:
    """The answers that stay right, by layer: a figure for every edge set, by its name."""
    right = by_sample(table, "correct", several="mean").values.mean()
    said = f"without a knockout {100 * right:.0f}%"
    drawn = draw_sweep(table, said, "right answers (%)", column=RIGHT)
    return {f"{name}-accuracy": figure for name, figure in drawn.items()}


def draw_tasks(table: pa.Table) -> dict[str, Figure]:
    """A figure for every task, if there are several: change and accuracy of every edge set."""
    tasks = grouped(table, "task")
    if len(tasks) < 2:
        return {}
    return {f"task-{task}": _draw_task(task, rows) for task, rows in tasks.items()}


def _draw_task(task: str, table: pa.Table) -> Figure:
    columns = {"relative_change": "change (%)", RIGHT: "right answers (%)"}
    names = [name for (name,) in distinct(table, "edge_set")]
    figure, panels = sheet(
        2 * len(names), width=10, height=1.2 + 2.6 * len(names), across=2, dots=130
    )
    samples = 0
    for index, axes in enumerate(panels):
        name, column = names[index // 2], list(columns)[index % 2]
        lines = list(curves(table.filter(pc.field("edge_set") == name), column))
        samples = max(samples, *(line.samples for line in lines))
        if len(lines) > MOST_LINES:
            heat_map(figure, axes, lines, columns[column], signed=column != RIGHT)
        else:
            for style, line in enumerate(lines):
                text = arrow(line.label)
                draw_line(axes, line.layer, line.mean, line.low, line.high, text, style)
            if column != RIGHT:
                zero_line(axes)
            axes.set_ylabel(columns[column], fontsize=8)
            tidy(axes)
            inner_legend(axes)
        layer_axis(axes, WINDOW)
        caption(axes, name)
    counted = count_of(samples, f"left, {BAND}", f"right, band: {SCORE}")
    headline(figure, task, f"{window_of(table)}; {counted}", table)
    return figure


def window_of(table: pa.Table) -> str:
    """Width and style of a run's windows, in words."""
    found = []
    styles = "style" if "style" in table.schema.names else None
    for width, *style in distinct(table, "width", *([styles] if styles else [])):
        open_ended = style and style[0] in ("top_down", "bottom_up")
        layers = "" if open_ended else f"{width} layer{'s' * (width != 1)}"
        found.append(", ".join(filter(None, [layers, *(s.replace("_", "-") for s in style)])))
    return f"window {'; '.join(found)}"


def _draw(
    name: str, lines: Sequence[Curve], table: pa.Table, said: str, label: str, column: str
) -> Figure:
    """Lines with bands; where there are too many to tell apart, a heat map of their means."""
    many = len(lines) > MOST_LINES
    labels = [textwrap.fill(arrow(curve.label), 90) for curve in lines]
    columns = 2 if len(lines) > 1 and max(map(len, labels)) < 45 else 1
    rows = math.ceil(sum(label.count("\n") + 1 for label in labels) / columns)
    height = min(9.0, 1.6 + 0.16 * len(lines)) if many else 3.7 + 0.15 * rows
    figure, (axes,) = sheet(height=height)
    if many:
        heat_map(figure, axes, lines, label, signed=column != RIGHT)
        layer_axis(axes, WINDOW)
    else:
        if column != RIGHT:
            zero_line(axes)
        for index, (curve, text) in enumerate(zip(lines, labels, strict=True)):
            draw_line(axes, curve.layer, curve.mean, curve.low, curve.high, text, index)
        axes.set_ylabel(label)
        layer_axis(axes, WINDOW)
        tidy(axes)
        legend(figure, axes, columns)
    samples = max(curve.samples for curve in lines)
    mark, scored = ("", f"band: {SCORE}") if column == RIGHT else (BAND, "")
    counted = f"n = {samples}" if many else count_of(samples, mark, scored)
    headline(figure, name, "; ".join(filter(None, [window_of(table), said, counted])), table)
    return figure


def heat_map(
    figure: Figure, axes: Axes, lines: Sequence[Curve], label: str, *, signed: bool = True
) -> None:
    """Means of edges, a row each, and a column for every layer between the first and the last."""
    layers = np.concatenate([curve.layer for curve in lines])
    first = int(layers.min())
    values = np.full((len(lines), int(layers.max()) - first + 1), np.nan)
    for row, curve in zip(values, lines, strict=True):
        row[curve.layer - first] = curve.mean
    labels = [textwrap.shorten(arrow(curve.label), 52, placeholder=" ...") for curve in lines]
    image = draw_heat(axes, values, labels, first=first, signed=signed)
    figure.colorbar(image, ax=axes, label=label)
