"""Figures of a sweep: one PNG per edge set."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowjax.files import atomically
from flowjax.report.curves import Curve, curves

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind readers."""

LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Lines also differ in dash and marker, so that they are told apart in grey."""


def draw_sweep(table: pa.Table, folder: Path) -> list[Path]:
    """Draw every edge set of a sweep's results into `folder`.

    Returns:
        The files, one PNG per edge set.

    Raises:
        FlowjaxError: the table has no rows, or a sample lacks some windows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    head = {name: _values(table, name) for name in ("model", "model_note", "width", "style")}
    paths = []
    for edge_set, lines in groupby(curves(table), key=lambda curve: curve.edge_set):
        figure = _draw(edge_set, list(lines), head)
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
    figure = Figure(
        figsize=(6.5, 4.0 + 0.14 * max(0, len(lines) - 4)), dpi=200, layout="constrained"
    )
    axes = figure.add_subplot()
    axes.axhline(0, color="0.4", linewidth=0.8)
    for index, curve in enumerate(lines):
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
            label=curve.label.replace("->", " \N{RIGHTWARDS ARROW} ").replace("_", " "),
        )
    samples = lines[0].samples
    band = "band: 95% bootstrap interval" if samples > 1 else "one sample: no interval"
    width = "" if head["style"] in ("top_down", "bottom_up") else f"{head['width']} layers, "
    axes.set_title(
        f"n = {samples}, window {width}{head['style'].replace('_', '-')}; {band}",
        fontsize=8,
        color="0.3",
    )
    figure.suptitle(f"{edge_set}: {head['model']}", fontsize=10)
    axes.set_xlabel("layer (centre of the window)")
    axes.set_ylabel("change of answer probability (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    legend = figure.legend(
        loc="outside lower center",
        ncols=1 if len(lines) == 1 else 2,
        fontsize=8,
        frameon=False,
        title=head["model_note"] or None,
        title_fontsize=7,
    )
    legend.get_title().set_color("#8B0000")
    return figure


def _values(table: pa.Table, column: str) -> str:
    """The distinct values of a column, joined."""
    return ", ".join(
        str(value) for value in np.unique(table[column].to_numpy(zero_copy_only=False))
    )
