"""Attention maps: what target tokens read of the video, with and without a knockout."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from flowjax.lens.pictures import Pictures
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
from flowjax.report.statistics import Interval, mean_interval, paired_interval

MEAN = -1
"""The `head` of rows that are means over heads."""

HEAT = "plasma"
"""Colours of attention on pictures."""

SIDE = 1.55
"""Of a picture, in inches."""


@dataclass(frozen=True)
class VideoAttention:
    """Share of the target's attention that goes to the video, mean over heads, at a layer (from 1).

    cut, change: with the knockout, and its difference, paired over samples; None without one.
    """

    layer: int
    base: Interval
    cut: Interval | None
    change: Interval | None


def video_attention(table: pa.Table) -> list[VideoAttention]:
    """Every layer.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    layers, base, cut = _of_video(table)
    return [
        VideoAttention(
            layer + 1,
            mean_interval(base[:, i]),
            None if cut is None else mean_interval(cut[:, i]),
            None if cut is None else paired_interval(cut[:, i], base[:, i]),
        )
        for i, layer in enumerate(layers)
    ]


def _of_video(
    table: pa.Table,
) -> tuple[
    tuple[int, ...],
    Float[np.ndarray, "samples layers"],
    Float[np.ndarray, "samples layers"] | None,
]:
    """Layers, and the attention to the whole video without and with the knockout."""
    means = table.filter(pc.field("head") == MEAN)
    keys = ["sample_id", "layer", "knockout"]
    sums = means.group_by(keys, use_threads=False).aggregate([("attention", "sum")])
    found = by_sample(sums, "attention_sum", "knockout", "layer")
    base, *cut = np.moveaxis(found.values, 1, 0)
    return found.axes[1], base, cut[0] if cut else None


def about(table: pa.Table) -> str:
    """Whose attention it is, and what was cut."""
    target = table["target"][0].as_py().replace("_", " ")
    cut = table.filter(table["knockout"])
    if not cut.num_rows:
        return f"target: {target}"
    layers = cut["cut_layers"][0].as_py()
    edge = cut["edge"][0].as_py().replace("->", " \N{RIGHTWARDS ARROW} ").replace("_", " ")
    return f"target: {target}; cut: {edge} in layers {layers}"


def draw_attention(table: pa.Table, path: Path) -> Path:
    """Draw the attention to the video over layers, and where among the frames it goes.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    layers, base, cut = _of_video(table)
    maps = _frame_maps(table)
    figure = Figure(figsize=(4.6 + 2.6 * len(maps), 4.0), dpi=200, layout="constrained")
    ratios = [2.0, *([1.0] * len(maps))]
    panels = figure.subplots(1, 1 + len(maps), width_ratios=ratios, squeeze=False)[0]
    lines = [Line("as it is", 100 * base, 0)]
    if cut is not None:
        lines.append(Line("edge cut", 100 * cut, 1))
    draw_lines(panels[0], layers, lines)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("attention to the video (%)")
    if cut is not None:
        legend(figure, panels[0])
    most = max(100 * float(values.max()) for values in maps.values()) if maps else 0.0
    for axes, (name, values) in zip(panels[1:], maps.items(), strict=True):
        image = _frame_map(axes, name, 100 * values, most, first=layers[0])
        if axes is panels[-1]:
            figure.colorbar(image, ax=axes, label="attention to the frame (%)")
    head(figure, "Attention to the video", f"{about(table)}; {count_of(len(base))}", table)
    return save_figure(figure, path)


def _frame_maps(table: pa.Table) -> dict[str, Float[np.ndarray, "layers frames"]]:
    """Mean over samples, by condition; none where samples differ in their number of frames."""
    counts = table.group_by("sample_id").aggregate([("frame", "max")])["frame_max"].unique()
    if len(counts) > 1:
        return {}
    means = table.filter(pc.field("head") == MEAN)
    found = by_sample(means, "attention", "knockout", "layer", "frame")
    names = ["as it is"] if len(found.axes[0]) == 1 else ["as it is", "edge cut"]
    return dict(zip(names, found.values.mean(0), strict=True))


def _frame_map(
    axes: Axes, name: str, values: Float[np.ndarray, "layers frames"], most: float, first: int
) -> AxesImage:
    layers, frames = values.shape
    image = axes.imshow(
        values,
        cmap="viridis",
        vmin=0,
        vmax=most or 1.0,
        aspect="auto",
        interpolation="nearest",
        origin="lower",
        extent=(0.5, frames + 0.5, first + 0.5, first + layers + 0.5),
    )
    axes.set_title(name, fontsize=8, color="0.3")
    axes.set_xlabel("frame")
    axes.set_ylabel("layer")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return image


def draw_attention_frames(table: pa.Table, pictures: Pictures, at_head: int, path: Path) -> Path:
    """Draw the attention of one sample on its frames: per layer as it is, and below with the cut.

    Colours go from 0 to the largest weight of the layer, in either row.

    Args:
        table: with rows of the sample and head.
        pictures: of the sample, one per frame cell.
        at_head: 0-based, or `MEAN`.
        path: of the PNG.
    """
    of_sample = pc.field("sample_id") == pictures.sample_id
    drawn = pc.field("layer").isin(list(pictures.layers))
    chosen = table.filter(of_sample & (pc.field("head") == at_head) & drawn)
    conditions = sorted(chosen["knockout"].unique().to_pylist())
    maps = {
        (row["layer"], row["knockout"], row["frame"]): np.reshape(
            row["weights"], (row["rows"], row["columns"])
        )
        for row in chosen.to_pylist()
    }
    frames = pictures.frames
    lines = [(layer, knockout) for layer in sorted(pictures.layers) for knockout in conditions]
    ratio = frames.shape[1] / frames.shape[2]
    size = (1.2 + SIDE * len(frames), 1.3 + SIDE * ratio * len(lines))
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    panels = figure.subplots(len(lines), len(frames), squeeze=False)
    for (layer, knockout), row in zip(lines, panels, strict=True):
        of_layer = [values for (at, _, _), values in maps.items() if at == layer]
        most = max(float(values.max()) for values in of_layer)
        for index, (axes, frame) in enumerate(zip(row, frames, strict=True)):
            _heat(axes, frame, maps[layer, knockout, index] / (most or 1.0))
        state = "edge cut" if knockout else "as it is"
        text = f"layer {layer + 1}\n{state}\nlargest {100 * most:.2g}%"
        row[0].set_ylabel(text, fontsize=7, rotation=0, ha="right", va="center")
    for index, axes in enumerate(panels[0]):
        axes.set_title(f"frame {index + 1}", fontsize=8)
    scale = ScalarMappable(Normalize(0, 1), HEAT)
    bar = figure.colorbar(scale, ax=panels, orientation="horizontal", aspect=60, shrink=0.5)
    bar.set_label("attention weight as a share of the layer's largest", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    which = "mean over heads" if at_head == MEAN else f"head {at_head}, counted from 0"
    said = f"sample {drawable(pictures.sample_id)}; {about(chosen)}; {which}"
    head(figure, "Attention to every video position", said, chosen)
    return save_figure(figure, path)


def _heat(axes: Axes, frame: np.ndarray, share: Float[np.ndarray, "rows columns"]) -> None:
    """A picture in grey with a colour over every grid place, the stronger the larger the share."""
    rows, columns = share.shape
    extent = (0, columns, rows, 0)
    axes.imshow(frame.mean(-1), cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto")
    axes.imshow(
        share,
        cmap=HEAT,
        vmin=0,
        vmax=1,
        alpha=0.15 + 0.6 * share,
        extent=extent,
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_xticks([])
    axes.set_yticks([])
