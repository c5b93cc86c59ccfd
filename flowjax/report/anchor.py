"""The probability of a generated token under knockouts, one panel per edge set."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from flowjax.report.arrays import by_sample
from flowjax.report.canvas import Line, count_of, draw_lines, drawable, head, save_figure

MOST_LINES = 7
"""Edges in a panel, those that change most; more are not told apart."""


def draw_anchor(table: pa.Table, folder: Path) -> list[Path]:
    """Draw the change of the anchor's probability at every layer into `folder`.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    sets = table["edge_set"].unique().to_pylist()
    figure = Figure(figsize=(1.2 + 4.2 * len(sets), 4.2), dpi=200, layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for axes, edge_set in zip(panels, sets, strict=True):
        rows = table.filter(pc.field("edge_set") == edge_set)
        found = by_sample(rows, "relative_change", "edge", "centre")
        every = rows["edge"].unique().to_pylist()
        size = dict(zip(found.axes[0], np.abs(found.values.mean(axis=0)).max(axis=1), strict=True))
        most = sorted(every, key=lambda edge: -size[edge])[:MOST_LINES]
        edges = [edge for edge in every if edge in most]
        lines = [
            Line(
                drawable(edge.replace("->", " \N{RIGHTWARDS ARROW} ").replace("_", " ")),
                found.values[:, found.axes[0].index(edge)],
                index,
            )
            for index, edge in enumerate(edges)
        ]
        draw_lines(axes, found.axes[1], lines)
        axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        axes.set_xlabel("layer (centre of the window)")
        left_out = f", {len(edges)} of {len(every)} edges" if len(edges) < len(every) else ""
        axes.set_title(edge_set + left_out, fontsize=8, color="0.3", parse_math=False)
        box = axes.legend(fontsize=7, frameon=False)
        for text in box.get_texts():
            text.set_parse_math(False)
    panels[0].set_ylabel("change of the token's probability (%)")
    width, token = table["width"][0].as_py(), table["token"][0].as_py()
    said = f"{count_of(len(table['sample_id'].unique()))}; windows of {width} layers"
    samples = table["sample_id"].unique()
    if len(samples) == 1:
        before, anchor = table["generated"][0].as_py(), table["anchor"][0].as_py()
        said += f'; the token "{anchor}" after "{before}"' if before else f'; the token "{anchor}"'
    head(figure, f"Generated token {token} under knockouts", drawable(said), table)
    return [save_figure(figure, folder / "anchor.png")]
