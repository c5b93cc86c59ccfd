"""The figure of `flowjax efficiency`: accuracy against FLOPs, cache and time."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowjax.efficiency.front import FULL, LEVELS, Band, Costed
from flowjax.report.canvas import SCORE, caption, count_of, headline, legend, sheet
from flowjax.report.marks import COLOURS, LINES, MARKERS, bars_of, tidy

AXES = {"flops": "FLOPs (%)", "cache": "KV cache (%)", "seconds": "measured time (%)"}
"""What a setting costs, and its label."""


def draw_efficiency(
    table: pa.Table, settings: Sequence[Costed], titles: Mapping[str, str], band: Band
) -> Figure:
    """One panel for each cost, a line for each method.

    Args:
        table: the run's rows.
        settings: of the run.
        titles: of its methods, by name.
        band: the best accuracy at each share of FLOPs.
    """
    timed = not np.isnan([at.seconds for at in settings]).all()
    axes_of = {name: label for name, label in AXES.items() if timed or name != "seconds"}
    figure, panels = sheet(len(axes_of), width=4 * len(axes_of), height=4.4, share_y=True)
    for axes, (cost, label) in zip(panels, axes_of.items(), strict=True):
        if cost == "flops":
            _front(axes, band)
        for style, name in enumerate(titles):
            _line(axes, [at for at in settings if at.method == name], cost, titles[name], style)
        axes.set_xlabel(label)
        caption(axes, f"against {label.removesuffix(' (%)')}")
    chance = float(np.mean(1 / table["options"].to_numpy()))
    for axes in panels:
        axes.axhline(chance, color="0.5", linestyle=":", linewidth=1)
    panels[0].set_ylabel("accuracy")
    panels[0].set_ylim(0, 1.02)
    legend(figure, panels[0], columns=4)
    said = count_of(len(settings[0].right), "", f"bars: {SCORE}")
    said += (
        "; 100%: the compiled prefill that cuts nothing; grey: the highest accuracy at each cost, "
        "with the bootstrap's 95% band; dotted: guessing"
    )
    headline(figure, "What a cheaper prefill still answers", said, table)
    return figure


def _front(axes: Axes, band: Band) -> None:
    x = 100 * band.flops
    axes.fill_between(x, band.low, band.high, step="post", color="0.85", linewidth=0)
    axes.step(x, band.best, where="post", color="0.6", linewidth=1)
    for level in LEVELS:
        axes.axvline(100 * level, color="0.8", linewidth=0.8, zorder=0)


def _line(axes: Axes, of: Sequence[Costed], cost: str, title: str, style: int) -> None:
    order = sorted(of, key=lambda at: getattr(at, cost))
    intervals = [at.accuracy for at in order]
    axes.errorbar(
        [100 * getattr(at, cost) for at in order],
        [at.mean for at in intervals],
        yerr=bars_of(intervals),
        color="0.2" if of and of[0].method == FULL else COLOURS[style % len(COLOURS)],
        linestyle=LINES[style // len(COLOURS) % len(LINES)],
        marker=MARKERS[style % len(MARKERS)],
        markersize=4,
        linewidth=1.2,
        elinewidth=0.6,
        label=title,
    )
    tidy(axes)
