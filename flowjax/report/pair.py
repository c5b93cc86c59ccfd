"""Sweeps of two models side by side: a panel per task and edge set, a line per edge and model."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from flowjax.errors import FlowjaxError
from flowjax.report.canvas import BAND, FROM, save_figure
from flowjax.report.curves import curves
from flowjax.report.marks import COLOURS, tidy

DASHES = ("-", "--", ":")
"""One for each model."""

QUIET = (-20.0, 10.0)
"""Percent that every panel shows at least, so that noise around zero does not look like more."""


def draw_pair(tables: Mapping[str, pa.Table], path: Path) -> Path:
    """Draw the sweeps of some models over the same tasks and edges.

    Args:
        tables: rows of `flowjax.sweeps.rows.SCHEMA`, by the model's name in the figure; a task that
            a model has no rows of stays without its lines.
        path: the PNG to write.

    Raises:
        FlowjaxError: see `flowjax.report.curves.curves`.
    """
    some = pa.concat_tables(tables.values())
    if not some.num_rows:
        raise FlowjaxError("the results hold no rows to draw")
    tasks: list[str] = some["task"].unique().to_pylist()
    edge_sets: list[str] = some["edge_set"].unique().to_pylist()
    size = 3.1 * len(edge_sets) + 0.6, 1.9 * len(tasks) + 1.3
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(len(tasks), len(edge_sets), sharex=True, squeeze=False)
    for number, (row, task) in enumerate(zip(grid, tasks, strict=True), 1):
        for axes, edge_set in zip(row, edge_sets, strict=True):
            edges = _panel(axes, tables, task, edge_set)
            if number == len(tasks):
                axes.set_xlabel("layer from 1 (centre of the window)")
                _edges_legend(axes, edges)
        row[0].set_ylabel(f"{task.replace('_', ' ')}\nchange (%)", fontsize=8)
    for axes, edge_set in zip(grid[0], edge_sets, strict=True):
        axes.set_title(edge_set, fontsize=9, parse_math=False)
    title = f"Change of the answer's probability; {BAND}, {FROM}"
    figure.suptitle(textwrap.fill(title, int(11 * size[0])), fontsize=10)
    models = [
        Line2D([], [], color="0.2", linestyle=DASHES[index % len(DASHES)], label=name)
        for index, name in enumerate(tables)
    ]
    figure.legend(handles=models, loc="outside lower center", ncols=len(models), frameon=False)
    return save_figure(figure, path)


def _panel(axes: Axes, tables: Mapping[str, pa.Table], task: str, edge_set: str) -> Sequence[str]:
    """Lines of one task and edge set; gives the edges in the order of their colours."""
    axes.axhline(0, color="0.4", linewidth=0.8)
    edges: list[str] = []
    counts = []
    for index, table in enumerate(tables.values()):
        chosen = table.filter((pc.field("task") == task) & (pc.field("edge_set") == edge_set))
        samples = 0
        for curve in curves(chosen) if chosen.num_rows else ():
            if curve.label not in edges:
                edges.append(curve.label)
            colour, samples = COLOURS[edges.index(curve.label) % len(COLOURS)], curve.samples
            axes.fill_between(
                curve.layer, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0
            )
            dash = DASHES[index % len(DASHES)]
            axes.plot(curve.layer, curve.mean, color=colour, linestyle=dash, linewidth=1.3)
        counts.append(f"{samples}")
    axes.text(
        0.98, 0.04, f"n = {', '.join(counts)}", transform=axes.transAxes, ha="right", fontsize=6,
        color="0.4",
    )  # fmt: skip
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, QUIET[0]), max(high, QUIET[1]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7)
    axes.margins(x=0.02)
    tidy(axes)
    return edges


def _edges_legend(axes: Axes, edges: Sequence[str]) -> None:
    handles = [
        Line2D([], [], color=COLOURS[index % len(COLOURS)], label=edge.replace("_", " "))
        for index, edge in enumerate(edges)
    ]
    box = axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.32), fontsize=7, frameon=False
    )
    for text in box.get_texts():
        text.set_parse_math(False)
