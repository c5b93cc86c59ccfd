"""What figures share: saving, titles, lines over layers, text that the font can draw."""

import functools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator

from flowjax.files import atomically
from flowjax.report.figures import COLOURS, LINES, MARKERS
from flowjax.report.statistics import bootstrap_mean

INTERVAL = "band: 95% bootstrap interval over samples"
NOT_IN_FONT = "\N{WHITE SQUARE}"


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, complete or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(
        path,
        lambda temporary: FigureCanvasAgg(figure).print_png(
            str(temporary), metadata={"Software": None}
        ),
    )
    return path


def head(figure: Figure, title: str, subtitle: str, table: pa.Table) -> None:
    """Title, and under it what to know: the model, its note, and `subtitle`."""
    models = ", ".join(table["model"].unique().to_pylist())
    notes = [note for note in table["model_note"].unique().to_pylist() if note]
    width = int(figure.get_figwidth() * 13)
    lines = [textwrap.fill(f"{title}: {drawable(models)}", width)]
    small = [textwrap.fill(text, width) for text in (subtitle, *map(drawable, notes))]
    figure.suptitle("\n".join([*lines, *small]), fontsize=9, parse_math=False)


def count_of(samples: int) -> str:
    """How many samples a curve is of, and what its band is."""
    return f"n = {samples}; {INTERVAL}" if samples > 1 else "one sample: no interval"


@dataclass(frozen=True, eq=False)
class Line:
    """A curve over layers: one row of values per sample.

    style: which colour, dash and marker; the same number is the same everywhere.
    """

    label: str
    values: Float[np.ndarray, "samples layers"]
    style: int


def draw_lines(axes: Axes, layers: Sequence[int], lines: Sequence[Line]) -> None:
    """Means over samples with their intervals; `layers` are 0-based and drawn from 1."""
    x = np.array(layers) + 1
    for line in lines:
        mean, low, high = bootstrap_mean(line.values)
        colour = COLOURS[line.style % len(COLOURS)]
        if len(line.values) > 1:
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            x,
            mean,
            color=colour,
            linestyle=LINES[line.style % len(LINES)],
            marker=MARKERS[line.style % len(MARKERS)],
            markersize=4,
            linewidth=1.6,
            label=line.label,
        )
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)
    tidy(axes)


def tidy(axes: Axes) -> None:
    """A light grid and no box."""
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """The legend of an axes, below the figure."""
    handles, labels = axes.get_legend_handles_labels()
    box = figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )
    for text in box.get_texts():
        text.set_parse_math(False)


def drawable(text: str) -> str:
    """Text with a square in the place of every character that the font lacks."""
    have = _characters()
    return "".join(c if ord(c) in have and c.isprintable() else NOT_IN_FONT for c in text)


@functools.cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
