"""What figures are made of: lines with bands, points, bars, heat maps, pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from flowjax.report.canvas import drawable
from flowjax.report.statistics import Interval, bootstrap_mean

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind readers."""

LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Lines also differ in dash and marker, so that they are told apart in grey."""

LAYER = "layer from 1"
WINDOW = "layer from 1 (centre of the window)"
"""Labels of the axis of layers: in figures, and only there and in tables, the first is 1."""


@dataclass(frozen=True, eq=False)
class Line:
    """A curve over layers: one row of values per sample.

    style: which colour, dash and marker; the same number is the same everywhere.
    """

    label: str
    values: Float[np.ndarray, "samples layers"]
    style: int


@dataclass(frozen=True)
class Points:
    """Means with their intervals; across: also horizontal intervals, in the place of `x`."""

    label: str
    x: Sequence[float]
    y: Sequence[Interval]
    colour: str
    form: str = "o"
    across: Sequence[Interval] = ()


def draw_lines(
    axes: Axes, layers: Sequence[int], lines: Sequence[Line], *, label: str = LAYER
) -> None:
    """Means over samples with their intervals; `layers` are 0-based and drawn from 1."""
    x = np.array(layers) + 1
    for line in lines:
        draw_line(axes, x, *bootstrap_mean(line.values), line.label, line.style)
    layer_axis(axes, label)
    tidy(axes)


def draw_line(
    axes: Axes,
    x: np.ndarray,
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    label: str,
    style: int,
) -> None:
    """One line of values already averaged, in the colour, dash and marker of `style`.

    low, high: of its band, NaN where there is none.
    """
    colour = COLOURS[style % len(COLOURS)]
    if not np.isnan(low).all():
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        x,
        mean,
        color=colour,
        linestyle=LINES[style % len(LINES)],
        marker=MARKERS[style % len(MARKERS)],
        markersize=4,
        linewidth=1.6,
        label=label,
    )


def draw_points(axes: Axes, points: Points, **style: Any) -> None:  # noqa: ANN401 - matplotlib's
    """Points with bars, where they have intervals."""
    if not points.y:
        return
    x = [at.mean for at in points.across] if points.across else list(points.x)
    axes.errorbar(
        x,
        [at.mean for at in points.y],
        yerr=bars_of(points.y),
        xerr=bars_of(points.across) if points.across else None,
        fmt=points.form,
        color=points.colour,
        label=points.label,
        **{"markersize": 5, "elinewidth": 0.8} | style,
    )
    tidy(axes)


def draw_bars(
    axes: Axes, places: Sequence[str], groups: Sequence[tuple[str, Sequence[Interval], int]]
) -> None:
    """Groups of upright bars with their intervals: a label, an interval per place, a style."""
    width = 0.8 / max(1, len(groups))
    for index, (label, intervals, style) in enumerate(groups):
        axes.bar(
            np.arange(len(places)) + width * (index - (len(groups) - 1) / 2),
            [at.mean for at in intervals],
            width=0.9 * width,
            color=COLOURS[style],
            yerr=bars_of(intervals),
            error_kw={"elinewidth": 1},
            label=drawable(label),
        )
    axes.set_xticks(range(len(places)), places)
    axes.tick_params(axis="x", labelsize=8, length=0)
    axes.set_ylim(0, 1.02)
    tidy(axes)


def draw_heat(
    axes: Axes,
    values: Float[np.ndarray, "rows columns"],
    labels: Sequence[str] = (),
    *,
    first: int | float = 1,
    signed: bool = True,
    most: int | float | None = None,
) -> AxesImage:
    """A heat map; signed: zero has the middle colour.

    values: grey where NaN.
    labels: of the rows, the first above. Without any, rows are layers from below, 0-based as their
        index is and drawn from 1.
    first: number of the first column.
    """
    top = (float(np.nanmax(np.abs(values))) if most is None else most) or 1.0
    rows, columns = values.shape
    low, high = (rows - 0.5, -0.5) if labels else (0.5, rows + 0.5)
    axes.set_facecolor("0.8")
    image = axes.imshow(
        values,
        cmap="PuOr" if signed else "viridis",
        vmin=-top if signed else 0,
        vmax=top,
        aspect="auto",
        interpolation="nearest",
        origin="upper" if labels else "lower",
        extent=(first - 0.5, first + columns - 0.5, low, high),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if labels:
        axes.set_yticks(range(rows), labels, parse_math=False)
        axes.tick_params(axis="y", labelsize=max(3, min(7, 260 / rows)), length=0)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return image


def draw_picture(
    axes: Axes, frame: UInt8[np.ndarray, "height width 3"], rows: int, columns: int
) -> tuple[float, float, float, float]:
    """A picture under a grid of `rows` x `columns` places; gives the grid's extent."""
    extent = (0.0, float(columns), float(rows), 0.0)
    axes.imshow(frame, extent=extent, aspect="auto", cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    return extent


def bars_of(intervals: Sequence[Interval]) -> Float[np.ndarray, "2 n"]:
    """Lengths of bars below and above the means."""
    lengths = [[at.mean - at.low, at.high - at.mean] for at in intervals]
    return np.maximum(np.array(lengths, np.float64).reshape(-1, 2).T, 0)


def zero_line(axes: Axes) -> None:
    """A line where nothing changes."""
    axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)


def layer_axis(axes: Axes, label: str = LAYER) -> None:
    """A horizontal axis of layers."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)


def tidy(axes: Axes) -> None:
    """A light grid and no box."""
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
