"""Logit lens: how often video positions read as spatial and temporal words, and where."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from flowjax.lens.pictures import Pictures
from flowjax.lens.words import KINDS
from flowjax.report.arrays import by_sample
from flowjax.report.canvas import (
    Line,
    count_of,
    draw_lines,
    drawable,
    head,
    legend,
    save_figure,
)
from flowjax.report.figures import COLOURS
from flowjax.report.statistics import Interval, mean_interval, paired_interval

KIND_COLOURS = {"spatial": "#7FD1FF", "temporal": "#FFB347"}
"""On dark pictures."""

ACROSS = 4
"""Pictures beside each other."""

SIDE = 4.2
"""Of a picture, in inches."""

ROOM, SMALLEST = 45, 3.2
"""Points: width of a grid place that has room for two words; the smallest letters."""


@dataclass(frozen=True)
class WordShare:
    """Share of video positions with a word of a kind among their top tokens, at a layer (from 1).

    change: from the first layer, paired over samples.
    """

    kind: str
    layer: int
    share: Interval
    change: Interval


@dataclass(frozen=True, eq=False)
class _Shares:
    """Per sample and layer: 0 to 1. chance: the same for tokens drawn at random."""

    layers: tuple[int, ...]
    of: dict[str, Float[np.ndarray, "samples layers"]]
    chance: dict[str, float]


def word_shares(table: pa.Table) -> list[WordShare]:
    """Every kind and layer.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    shares = _shares(table)
    return [
        WordShare(
            kind,
            layer + 1,
            mean_interval(values[:, index]),
            paired_interval(values[:, index], values[:, 0]),
        )
        for kind, values in shares.of.items()
        for index, layer in enumerate(shares.layers)
    ]


def _shares(table: pa.Table) -> _Shares:
    k = len(table["token_ids"][0]) if table.num_rows else 1
    of, chance, layers = {}, {}, ()
    for kind in KINDS:
        has = table.select(["sample_id", "layer"]).append_column(
            "has", pa.array((table[f"{kind}_rank"].to_numpy() >= 0).astype(np.float64))
        )
        keys = ["sample_id", "layer"]
        mean = has.group_by(keys, use_threads=False).aggregate([("has", "mean")])
        found = by_sample(mean, "has_mean", "layer")
        of[kind], layers = found.values, found.axes[0]
        vocabulary = float(table[f"{kind}_vocabulary"].to_numpy().mean())
        chance[kind] = 1 - (1 - vocabulary) ** k
    return _Shares(layers, of, chance)


def draw_words(table: pa.Table, path: Path) -> Path:
    """Draw the shares over layers: all samples, then each task if there are several.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    tasks = table["task"].unique().to_pylist()
    parts = [("all tasks" if len(tasks) > 1 else "", table)]
    if len(tasks) > 1:
        parts += [(task, table.filter(pc.field("task") == task)) for task in tasks]
    across = min(3, len(parts))
    down = math.ceil(len(parts) / across)
    size = (max(6.0, 3.4 * across), 1.6 + 2.5 * down)
    figure = Figure(figsize=size, dpi=200, layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes in panels.flat[len(parts) :]:
        axes.set_axis_off()
    for axes, (name, rows) in zip(panels.flat, parts, strict=False):
        _draw_shares(axes, rows)
        n = len(rows["sample_id"].unique())
        said = f"{drawable(name)} (n = {n})" if name else ""
        axes.set_title(said, fontsize=8, color="0.3", parse_math=False)
    for axes in panels[:, 0]:
        axes.set_ylabel("video positions (%)")
    panels[0, 0].set_ylim(bottom=0)  # shared by all
    legend(figure, panels.flat[0])
    k = len(table["token_ids"][0])
    samples = len(table["sample_id"].unique())
    head(
        figure,
        f"Video positions with such a word among their top {k} tokens",
        f"{count_of(samples)}; dotted: tokens drawn at random",
        table,
    )
    return save_figure(figure, path)


def _draw_shares(axes: Axes, table: pa.Table) -> None:
    shares = _shares(table)
    lines = [
        Line(f"{kind} words", 100 * values, style)
        for style, (kind, values) in enumerate(shares.of.items())
    ]
    draw_lines(axes, shares.layers, lines)
    for style, chance in enumerate(shares.chance.values()):
        axes.axhline(100 * chance, color=COLOURS[style], linestyle=":", linewidth=1)


def draw_overlay(table: pa.Table, pictures: Pictures, layer: int, path: Path) -> Path:
    """Write the top token of every grid place on the frames of one sample at one layer (0-based).

    Args:
        table: with rows of the sample and layer.
        pictures: of the sample, one per frame cell.
        layer: 0-based.
        path: of the PNG.
    """
    of_sample = pc.field("sample_id") == pictures.sample_id
    chosen = table.filter(of_sample & (pc.field("layer") == layer) & (pc.field("row") >= 0))
    rows = chosen.select(
        ["frame", "row", "column", "tokens", *(f"{kind}_rank" for kind in KINDS)]
    ).to_pylist()
    down_grid = 1 + max(row["row"] for row in rows)
    across_grid = 1 + max(row["column"] for row in rows)
    frames = pictures.frames
    across = min(ACROSS, len(frames))
    down = math.ceil(len(frames) / across)
    ratio = frames.shape[1] / frames.shape[2]
    figure = Figure(
        figsize=(SIDE * across, SIDE * ratio * down + 0.9), dpi=130, layout="constrained"
    )
    panels = figure.subplots(down, across, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for index, (axes, frame) in enumerate(zip(panels.flat, frames, strict=False)):
        axes.imshow(frame // 2, extent=(0, across_grid, down_grid, 0), aspect="auto")
        axes.set_title(f"frame {index + 1}", fontsize=9)
        cell = SIDE * 72 / across_grid
        _write_words(axes, [row for row in rows if row["frame"] == index], cell)
    task = chosen["task"][0].as_py()
    k = len(rows[0]["tokens"])
    about = f"sample {drawable(pictures.sample_id)}" + (f", task {drawable(task)}" if task else "")
    head(
        figure,
        f"Top token of every video position at layer {layer + 1}",
        f"{about}; blue: a spatial word, orange: a temporal word; "
        f"a coloured border: such a word is among the top {k}",
        chosen,
    )
    return save_figure(figure, path)


def _write_words(axes: Axes, rows: Sequence[dict[str, Any]], cell: float) -> None:
    """The words of one picture; `cell` is the width of a grid place in points."""
    for row in rows:
        x, y = row["column"], row["row"]
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor="0.45", linewidth=0.4))
        ranks = {kind: row[f"{kind}_rank"] for kind in KINDS if row[f"{kind}_rank"] >= 0}
        if not ranks:
            _write(axes, x + 0.5, y + 0.5, row["tokens"][0], cell, "white")
            continue
        kind = min(ranks, key=lambda kind: ranks[kind])
        colour, rank = KIND_COLOURS[kind], ranks[kind]
        both = rank > 0 and cell > ROOM
        _write(
            axes,
            x + 0.5,
            y + (0.42 if both else 0.5),
            row["tokens"][0],
            cell,
            "white" if rank else colour,
        )
        if both:
            _write(axes, x + 0.5, y + 0.68, f"({row['tokens'][rank]})", 0.7 * cell, colour)
        inner = Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, fill=False, edgecolor=colour)
        inner.set_linewidth(min(1.4, cell / 18))
        axes.add_patch(inner)


def _write(axes: Axes, x: float, y: float, token: str, width: float, colour: str) -> None:
    """A token in a place `width` points wide, shortened where it does not fit."""
    text = drawable(token) or "\N{OPEN BOX}"
    size = min(11.0, 1.5 * width / max(4, len(text)))
    if size < SMALLEST:
        size = SMALLEST
        text = text[: max(1, int(1.5 * width / size) - 1)] + "\N{HORIZONTAL ELLIPSIS}"
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color=colour, parse_math=False)
