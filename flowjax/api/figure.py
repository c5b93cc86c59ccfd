"""One figure of a sweep in memory: a panel per edge set."""

import io

import pyarrow as pa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flowjax.report.canvas import BAND, arrow, caption, count_of, headline, inner_legend
from flowjax.report.curves import Curve, curves
from flowjax.report.figures import CHANGE, MOST_LINES, heat_map, window_of
from flowjax.report.marks import WINDOW, draw_line, layer_axis, tidy, zero_line
from flowjax.sweeps.protocol import PATCH


class Shown(Figure):
    """A figure that a notebook shows where it is the last value of a cell, on any backend."""

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        FigureCanvasAgg(self).print_png(out)
        return out.getvalue()


def draw_swept(table: pa.Table) -> Figure:
    """Mean change of the answer's probability over layers, which are drawn from 1.

    Patches, and edges too many to tell apart as lines, are rows of a heat map.

    Raises:
        FlowjaxError: the table has no rows, or a sample lacks some windows.
    """
    panels: dict[str, list[Curve]] = {}
    for curve in curves(table):
        panels.setdefault(curve.edge_set, []).append(curve)
    heights = [max(2.4, 0.9 + 0.24 * len(lines)) for lines in panels.values()]
    figure = Shown(figsize=(6.5, sum(heights) + 0.6), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    mark = ""
    for panel, (name, lines) in zip(axes, panels.items(), strict=True):
        caption(panel, name)
        if name == PATCH or len(lines) > MOST_LINES:
            heat_map(figure, panel, lines, CHANGE)
        else:
            mark = BAND
            zero_line(panel)
            for index, line in enumerate(lines):
                text = arrow(line.label)
                draw_line(panel, line.layer, line.mean, line.low, line.high, text, index)
            panel.set_ylabel(CHANGE, fontsize=7)
            tidy(panel)
            inner_legend(panel)
        layer_axis(panel, WINDOW)
    samples = max(line.samples for lines in panels.values() for line in lines)
    headline(figure, "Sweep", f"{window_of(table)}; {count_of(samples, mark)}", table)
    return figure
