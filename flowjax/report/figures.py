"""Figures of a sweep: one per edge set."""

import math
import re
import textwrap
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from flowjax.errors import FlowjaxError
from flowjax.report.arrays import distinct
from flowjax.report.canvas import arrow, count_of, headline, legend, sheet
from flowjax.report.curves import Curve, curves
from flowjax.report.marks import WINDOW, draw_heat, draw_line, layer_axis, tidy, zero_line

MOST_LINES = 7
"""More edges than this are drawn as a heat map."""

CHANGE = "change of answer probability (%)"


def draw_sweep(table: pa.Table, said: str = "", label: str = CHANGE) -> dict[str, Figure]:
    """A figure for every edge set of a sweep's results, by its name.

    said: beside the number of samples and the windows, which the figure tells.

    Raises:
        FlowjaxError: the table has no rows, a sample lacks some windows, or an edge set's name
            cannot be a file name.
    """
    edge_sets: dict[str, list[Curve]] = {}
    for curve in curves(table):
        if not re.fullmatch(r"[\w-][\w.-]*", curve.edge_set):
            raise FlowjaxError(f"edge set {curve.edge_set!r} cannot be the name of a figure's file")
        edge_sets.setdefault(curve.edge_set, []).append(curve)
    return {name: _draw(name, lines, table, said, label) for name, lines in edge_sets.items()}


def window_of(table: pa.Table) -> str:
    """Width and style of a run's windows, in words."""
    found = []
    styles = "style" if "style" in table.schema.names else None
    for width, *style in distinct(table, "width", *([styles] if styles else [])):
        layers = "" if style and style[0] in ("top_down", "bottom_up") else f"{width} layers"
        found.append(", ".join(filter(None, [layers, *(s.replace("_", "-") for s in style)])))
    return f"window {'; '.join(found)}"


def _draw(name: str, lines: Sequence[Curve], table: pa.Table, said: str, label: str) -> Figure:
    """Lines with bands; where there are too many to tell apart, a heat map of their means."""
    many = len(lines) > MOST_LINES
    labels = [textwrap.fill(arrow(curve.label), 90) for curve in lines]
    columns = 2 if len(lines) > 1 and max(map(len, labels)) < 45 else 1
    rows = math.ceil(sum(label.count("\n") + 1 for label in labels) / columns)
    height = min(9.0, 1.6 + 0.16 * len(lines)) if many else 3.7 + 0.15 * rows
    figure, (axes,) = sheet(height=height)
    if many:
        _heat_map(figure, lines, label)
        layer_axis(axes, WINDOW)
    else:
        zero_line(axes)
        for index, (curve, text) in enumerate(zip(lines, labels, strict=True)):
            draw_line(axes, curve.layer, curve.mean, curve.low, curve.high, text, index)
        axes.set_ylabel(label)
        layer_axis(axes, WINDOW)
        tidy(axes)
        legend(figure, axes, columns)
    samples = max(curve.samples for curve in lines)
    counted = f"n = {samples}" if many else count_of(samples)
    headline(figure, name, "; ".join(filter(None, [window_of(table), said, counted])), table)
    return figure


def _heat_map(figure: Figure, lines: Sequence[Curve], label: str) -> None:
    layers = np.unique(np.concatenate([curve.layer for curve in lines]))
    values = np.full((len(lines), len(layers)), np.nan)
    for row, curve in zip(values, lines, strict=True):
        row[np.searchsorted(layers, curve.layer)] = curve.mean
    labels = [textwrap.shorten(arrow(curve.label), 52, placeholder=" ...") for curve in lines]
    image = draw_heat(figure.axes[0], values, labels, first=float(layers[0]))
    figure.colorbar(image, ax=figure.axes[0], label=label)
