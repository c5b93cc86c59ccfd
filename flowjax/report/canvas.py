"""What figures share: size, title and notes, legends, files, text that the font can draw."""

import functools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.backend_bases import get_registered_canvas_class
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from flowjax.files import atomically, writing
from flowjax.report.statistics import LEAST

INTERVAL = "pointwise 95% studentised bootstrap interval over samples"
BAND, BAR = f"band: {INTERVAL}", f"bar: {INTERVAL}"
FROM = f"where n is at least {LEAST}"
"""Beside a `BAND`, in figures of several n."""
SCORE = "95% score interval"
NOT_IN_FONT = "\N{WHITE SQUARE}"
DOTS = 200
"""Per inch."""

FORMATS: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}
"""Files of figures, and what is not to be written into them."""

EMBEDDED: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "flowjax"}


def sheet(
    panels: int = 1,
    *,
    width: int | float = 6.5,
    height: int | float = 4.2,
    across: int | None = None,
    ratios: Sequence[int | float] | None = None,
    share_y: bool = False,
    dots: int = DOTS,
) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches with panels, `across` in a row (all by default)."""
    columns = min(across or panels, panels)
    figure = Figure(figsize=(width, height), dpi=dots, layout="constrained")
    grid = figure.subplots(
        math.ceil(panels / columns), columns, squeeze=False, sharey=share_y, width_ratios=ratios
    )
    every: list[Axes] = list(grid.flat)
    for axes in every[panels:]:
        axes.set_axis_off()
    return figure, every[:panels]


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure, complete or not at all; its folder is made.

    Fonts are embedded in PDF as TrueType, which journals ask for, and text is shapes in SVG. The
    same figure gives the same bytes.

    Args:
        figure: what is written.
        path: its ending says how: one of `FORMATS`.

    Raises:
        FlowjaxError: it cannot be written.
    """
    kind = path.suffix.removeprefix(".")

    def write(temporary: Path) -> None:
        own = get_registered_canvas_class(kind)(figure)  # imports what writes it: PDF's takes .3 s
        with mpl.rc_context(EMBEDDED), temporary.open("wb") as file:
            own.print_figure(file, format=kind, dpi=figure.dpi,
                             metadata=FORMATS[kind], bbox_inches=None)  # fmt: skip

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomically(path, write)
    return path


def headline(figure: Figure, title: str, subtitle: str, table: pa.Table) -> None:
    """Title, and under it what to know: the model, its note, and `subtitle`."""
    models = ", ".join(table["model"].unique().to_pylist())
    notes = [note for note in table["model_note"].unique().to_pylist() if note]
    width = int(figure.get_figwidth() * 13)
    lines = [textwrap.fill(f"{title}: {drawable(models)}", width)]
    small = [textwrap.fill(text, width) for text in (subtitle, *map(drawable, notes)) if text]
    figure.suptitle("\n".join([*lines, *small]), fontsize=9, parse_math=False)


def count_of(samples: int, mark: str = BAND, scored: str = "") -> str:
    """How many samples means are of, and what their bands or bars are.

    Args:
        samples: how many.
        mark: which of them are bootstrap intervals; empty if none.
        scored: which are score intervals, which any number of samples has.
    """
    if mark and samples < LEAST:
        mark = "too few for a bootstrap interval"
    return "; ".join(filter(None, (f"n = {samples}", mark, scored)))


def caption(axes: Axes, text: str) -> None:
    """A small title of one panel."""
    axes.set_title(drawable(text), fontsize=8, color="0.3", parse_math=False)


def legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """The legend of an axes, below the figure."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    box = figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )
    for text in box.get_texts():
        text.set_parse_math(False)


def inner_legend(axes: Axes) -> None:
    """The legend of an axes, inside it where there is room."""
    box = axes.legend(fontsize=7, frameon=False, loc="best")
    for text in box.get_texts():
        text.set_parse_math(False)


def arrow(edge: str) -> str:
    """An edge, or several, as figures name it: `frame_0->last` with an arrow and spaces."""
    return drawable(edge.replace("->", " \N{RIGHTWARDS ARROW} ").replace("_", " "))


def drawable(text: str) -> str:
    """Text with a square in the place of every character that the font lacks."""
    have = _characters()
    return "".join(c if ord(c) in have and c.isprintable() else NOT_IN_FONT for c in text)


@functools.cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
