"""Attention maps: what chosen tokens read of the frames, with and without a knockout."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from flowjax.asked.asked import Asked
from flowjax.data.sample import Sample
from flowjax.edges import Knockout, parse_edges
from flowjax.errors import FlowjaxError
from flowjax.lens.drawn import drawn_layers, keep_drawn
from flowjax.lens.grid import frame_grids
from flowjax.lens.pictures import Pictures, frames_of, read_pictures
from flowjax.lens.read import AttentionReading, read_attention
from flowjax.masks import EdgeMask
from flowjax.models.loaded import LoadedModel
from flowjax.padding import bucket_rows, pad_prompt, padded_mask
from flowjax.progress import Advance
from flowjax.report.arrays import by_sample, grouped
from flowjax.report.canvas import arrow, caption, count_of, drawable, headline, legend, sheet
from flowjax.report.marks import LAYER as LAYER_LABEL
from flowjax.report.marks import Line, draw_heat, draw_lines, draw_picture
from flowjax.report.page.sample import OnSample
from flowjax.report.sign_flips import adjusted
from flowjax.report.statistics import Interval, mean_interval, paired_interval
from flowjax.report.table import JUDGED, LAYER, Table, judged, mean, tested_note
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import documented
from flowjax.runs.finished import Run
from flowjax.sweeps.protocol import TOKEN, parse_heads
from flowjax_experiments import on_sample
from flowjax_experiments.lens import Drawn, Layers
from flowjax_experiments.on_sample import OF_ATTENTION, attention_seen, of_sample

MEAN, MOST = -1, -2
"""The `head` of rows that are means over heads, and of those that are the largest of any head."""

MOST_HEADS = 4
"""More heads than this are kept as rows but not drawn one by one."""

STATES = {False: "as it is", True: "edge cut"}
HEAT, SIDE = "plasma", 1.55
"""Colours of attention on pictures, and the width of one in inches."""


@dataclass(frozen=True)
class Attention(Analysis):
    """What chosen tokens read of the frames, with and without a knockout."""

    SCHEMA = documented(
        ("target", pa.string(), "the token group whose attention it is, averaged over its tokens"),
        ("knockout", pa.bool_(), "whether edges were cut"),
        ("edge", pa.string(), "the edges cut, source->target, joined by +; empty if none"),
        ("cut_from", pa.int32(), "the first layer they were cut in, 0-based; -1 if none"),
        ("cut_to", pa.int32(), "the last layer they were cut in, 0-based; -1 if none"),
        ("layer", pa.int32(), "0-based"),
        ("head", pa.int32(), "0-based; -1 for the mean over heads, -2 for the largest of any"),
        ("frame", pa.int32(), "the frame that is read, 0-based"),
        ("attention", pa.float64(), "to all of the frame's tokens, 0 to 1; of head -2 their sum"),
        ("rows", pa.int32(), "of the frame's grid"),
        ("columns", pa.int32(), "of the frame's grid"),
        ("weights", pa.list_(pa.float32()), "to every grid place, row by row, 0 to 1"),
    )
    ON_SAMPLE = ("frames",)
    CHOSEN = "correct"

    target: Annotated[
        str,
        Option("Whose attention is read: last, option_A, question, or one token: question_stem[3]"),
    ] = "last"
    head: Annotated[
        str, Option("mean, max, all, or numbers such as 0,3 (from 0) or max,0,3, beside the mean.")
    ] = "mean"
    cut: Annotated[
        str | None, Option("An edge to cut, such as 'video->question'; several at once as a+b.")
    ] = None
    cut_layers: Annotated[
        str | None, Option("Where, as FIRST-LAST from 0. Default: every layer.")
    ] = None
    layers: Layers = ()
    drawn: Drawn = 1

    @property
    def cuts(self) -> bool:
        """With `--cut`."""
        return self.cut is not None

    def read(self, layers: int, heads: int) -> tuple[tuple[int, ...], Knockout | None]:
        """Heads and knockout, checked against a model's layers and heads.

        Raises:
            FlowjaxError: a head, edge or layers that the model does not have or that have another
                form.
        """
        parts = self.head.split(",")
        rest = ",".join(part for part in parts if part.strip() not in ("mean", "max"))
        chosen = parse_heads(rest) if rest else ()
        numbers = tuple(range(heads)) if chosen == "all" else tuple(chosen or ())
        for head in numbers:
            if head >= heads:
                raise FlowjaxError(f"--head {head}: the model's heads are 0 to {heads - 1}")
        if "max" in map(str.strip, parts):
            numbers = (MOST, *numbers)
        if self.cut is not None:
            cut_layers = parse_layers(self.cut_layers or f"0-{layers - 1}", layers)
            return numbers, Knockout(parse_edges(self.cut), cut_layers)
        if self.cut_layers is not None:
            raise FlowjaxError("--cut-layers says where --cut is cut, which is absent")
        return numbers, None

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Read the target's attention in one forward without the knockout and one with it."""
        decoder = loaded.config.decoder
        heads, knockout = self.read(decoder.layers, decoder.heads)
        drawn_layers(self.layers, decoder.layers)
        cuts = [None] if knockout is None else [None, knockout]

        def measure(asked: Asked, _: Advance) -> Measured:
            config, layout = asked.decoder.config, asked.layout
            # A cut that is none of this prompt's is an error before anything is kept.
            masks = [padded_mask(layout, [cut] if cut else [], config) for cut in cuts]
            full = _read(asked, self.target, masks[0])

            def rows() -> Rows:
                read = [full, *(_read(asked, self.target, mask) for mask in masks[1:])]
                return self._rows(asked, heads, cuts, read)

            return Measured(int(full.logits.argmax()), rows)

        at = None if knockout is None else list(knockout.layers)
        return Work(measure, {"head": list(heads), "cut_layers": at})

    def _rows(
        self,
        asked: Asked,
        heads: Sequence[int],
        cuts: Sequence[Knockout | None],
        read: Sequence[AttentionReading],
    ) -> Rows:
        layout = asked.layout
        grids = frame_grids(asked.model.config, asked.prompt, asked.pixel_values.shape)
        frames = [np.flatnonzero(layout.cell == cell) for cell in layout.cells_of("video")]
        rows: list[dict[str, Any]] = []
        for cut, (attention, _) in zip(cuts, read, strict=True):
            of_heads = np.asarray(attention)
            condition = {
                "target": self.target,
                "knockout": cut is not None,
                "edge": "" if cut is None else cut.name,
                "cut_from": -1 if cut is None else cut.layers[0],
                "cut_to": -1 if cut is None else cut.layers[-1],
            }
            for head in (MEAN, *heads):
                weights = _over_heads(of_heads, head)
                rows += [
                    {**condition, "layer": layer, "head": head, **of_frame}
                    for layer, row in enumerate(weights)
                    for of_frame in _of_frames(row, frames, grids)
                ]
        return rows

    def finish(self, run: Run, loaded: LoadedModel, samples: Sequence[Sample]) -> None:
        """Keep the frames that are drawn."""
        keep_drawn(run.path, loaded, samples, run.rows, self.layers, self.drawn)

    @staticmethod
    def report(run: Run) -> Report:
        """The attention to the video at every layer, and on the frames."""
        found = video_attention(run.rows)
        titles = [LAYER, "as it is", "95% interval"]
        if found[0].cut is not None:
            titles += ["edge cut", "change", *JUDGED]
        rows = []
        for at in found:
            cells = [str(at.layer), *mean(at.base.percent, ".2f")]
            if at.cut is not None and at.change is not None:
                change = judged(at.change.percent, "+.2f")
                cells += [f"{at.cut.percent.mean:.2f}", *change]
            rows.append(cells)
        title = f"Attention to the video in percent, n = {found[0].base.n}"
        figures = {"attention": draw_attention(run.rows)}
        heads = sorted(grouped(run.rows, "head"))
        for index, pictures in enumerate(read_pictures(run.path)):
            for head_ in heads if len(heads) <= 1 + MOST_HEADS else [MEAN]:
                name = {MEAN: "mean", MOST: "max"}.get(head_, f"head-{head_:02d}")
                figure = draw_attention_frames(run.rows, pictures, head_)
                figures[f"frames-{index:02d}-{name}"] = figure
        note = "" if found[0].cut is None else tested_note(f"all {len(found)} layers")
        return Report([about(run.rows), Table(title, [], titles, rows, note)], figures)

    @staticmethod
    def on_sample(run: Run, sample_id: str) -> OnSample | None:
        """The attention to every place of its frames."""
        rows = of_sample(run.rows, sample_id, *OF_ATTENTION)
        if rows is None:
            return None
        heads = sorted(set(rows["head"].to_pylist()), key=lambda head: (head >= 0, -head))
        called = {MEAN: "mean over heads", MOST: "largest of any head"}
        shown = {head: called.get(head, f"head {head}") for head in heads[: 2 + MOST_HEADS]}
        seen, frames = attention_seen(rows, shown), frames_of(run.path, sample_id)
        return dataclasses.replace(on_sample.about(rows), attention=seen, frames=frames)


def parse_layers(text: str, layers: int) -> tuple[int, ...]:
    """Read `"5-19"`, counted from 0 with both ends included, as layers.

    Raises:
        FlowjaxError: the text has another form, or a layer that the model does not have.
    """
    match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
    if not 0 <= first <= last < layers:
        raise FlowjaxError(
            f"--cut-layers {text!r}: write FIRST-LAST, both from 0 to {layers - 1}, such as "
            f"0-{layers - 1}"
        )
    return tuple(range(first, last + 1))


def _read(asked: Asked, target: str, mask: EdgeMask) -> AttentionReading:
    layout = asked.layout
    match = TOKEN.fullmatch(target)
    positions = (layout.split([match["group"]]) if match else layout).positions(target)
    # A few sizes share compiled code; what is added counts nothing.
    more = (0, bucket_rows(len(positions)) - len(positions))
    share = np.full(len(positions), 1 / len(positions), np.float32)
    return read_attention(
        asked.decoder,
        pad_prompt(asked.embedded),
        mask,
        jnp.asarray(np.pad(positions, more, mode="edge"), jnp.int32),
        jnp.asarray(np.pad(share, more)),
    )


def _over_heads(
    attention: Float[np.ndarray, "layers heads n"], head: int
) -> Float[np.ndarray, "layers n"]:
    """Of one head, or their mean or largest at every position."""
    if head == MEAN:
        return attention.mean(1)
    return attention.max(1) if head == MOST else attention[:, head]


def _of_frames(
    weights: Float[np.ndarray, " n"], frames: Sequence[np.ndarray], grids: np.ndarray
) -> list[dict[str, Any]]:
    return [
        {
            "frame": index,
            "attention": float(weights[positions].sum(dtype=np.float64)),
            "rows": grid.shape[0],
            "columns": grid.shape[1],
            "weights": weights[grid].ravel(),
        }
        for index, (positions, grid) in enumerate(zip(frames, grids, strict=True))
    ]


@dataclass(frozen=True)
class VideoAttention:
    """Share of the target's attention that goes to the video, mean over heads, at a layer (from 1).

    cut, change: with the knockout, and its difference, paired over samples and tested with all
        layers'; None without one.
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
    of_base = map(mean_interval, base.T)
    if cut is None:
        every = zip(layers, of_base, strict=True)
        return [VideoAttention(layer + 1, at, None, None) for layer, at in every]
    changes = adjusted(list(map(paired_interval, cut.T, base.T)), cut - base)
    every = zip(layers, of_base, map(mean_interval, cut.T), changes, strict=True)
    return [VideoAttention(layer + 1, *intervals) for layer, *intervals in every]


Values = Float[np.ndarray, "samples layers"]


def _of_video(table: pa.Table) -> tuple[tuple[int, ...], Values, Values | None]:
    """Layers, and the attention to the whole video without and with the knockout."""
    means = table.filter(pc.field("head") == MEAN)
    found = by_sample(means, "attention", "knockout", "layer", several="sum")
    base, *cut = np.moveaxis(found.values, 1, 0)
    return found.axes[1], base, cut[0] if cut else None


def about(table: pa.Table) -> str:
    """Whose attention it is, and what was cut."""
    target = table["target"][0].as_py().replace("_", " ")
    cut = table.filter(table["knockout"]).slice(0, 1).to_pylist()
    if not cut:
        return f"target: {target}"
    first, last = cut[0]["cut_from"] + 1, cut[0]["cut_to"] + 1
    edge = arrow(cut[0]["edge"])
    return f"target: {target}; cut: {edge} in layers {first}-{last}, counted from 1"


def draw_attention(table: pa.Table) -> Figure:
    """The attention to the video over layers, and where among the frames it goes.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    layers, base, cut = _of_video(table)
    maps = _frame_maps(table)
    ratios = [2.0, *([1.0] * len(maps))]
    figure, panels = sheet(1 + len(maps), width=4.6 + 2.6 * len(maps), height=4.0, ratios=ratios)
    lines = [
        Line(STATES[index > 0], 100 * values, index)
        for index, values in enumerate((base, cut))
        if values is not None
    ]
    draw_lines(panels[0], layers, lines)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("attention to the video (%)")
    if cut is not None:
        legend(figure, panels[0])
    most = max((100 * float(values.max()) for values in maps.values()), default=0.0)
    for axes, (name, values) in zip(panels[1:], maps.items(), strict=True):
        image = draw_heat(axes, 100 * values, signed=False, most=most)
        caption(axes, name)
        axes.set_xlabel("frame from 1")
        axes.set_ylabel(LAYER_LABEL)
        if axes is panels[-1]:
            figure.colorbar(image, ax=axes, label="attention to the frame (%)")
    headline(figure, "Attention to the video", f"{about(table)}; {count_of(len(base))}", table)
    return figure


def _frame_maps(table: pa.Table) -> dict[str, Float[np.ndarray, "layers frames"]]:
    """Mean over samples, by condition; none where samples differ in their number of frames."""
    counts = {rows["frame"].to_numpy().max() for rows in grouped(table, "sample_id").values()}
    if len(counts) > 1:
        return {}
    means = table.filter(pc.field("head") == MEAN)
    found = by_sample(means, "attention", "knockout", "layer", "frame")
    names = [STATES[knockout] for knockout in found.axes[0]]
    return dict(zip(names, found.values.mean(0), strict=True))


def draw_attention_frames(table: pa.Table, pictures: Pictures, at_head: int) -> Figure:
    """The attention of one sample on its frames: per layer as it is, and below with the cut.

    Colours go from 0 to the largest weight of the layer, in either row.

    Args:
        table: with rows of the sample and head.
        pictures: of the sample, one per frame cell.
        at_head: 0-based, `MEAN` or `MOST`.
    """
    of_sample = pc.field("sample_id") == pictures.sample_id
    drawn = pc.field("layer").isin(list(pictures.layers))
    chosen = table.filter(of_sample & (pc.field("head") == at_head) & drawn)
    maps = {
        (row["layer"], row["knockout"], row["frame"]): np.reshape(
            row["weights"], (row["rows"], row["columns"])
        )
        for row in chosen.to_pylist()
    }
    frames = pictures.frames
    lines = sorted({(layer, knockout) for layer, knockout, _ in maps})
    ratio = frames.shape[1] / frames.shape[2]
    figure, panels = sheet(
        len(lines) * len(frames),
        width=1.2 + SIDE * len(frames),
        height=1.3 + SIDE * ratio * len(lines),
        across=len(frames),
        dots=130,
    )
    grid = np.array(panels).reshape(len(lines), len(frames))
    for (layer, knockout), row in zip(lines, grid, strict=True):
        of_layer = [values for (at, _, _), values in maps.items() if at == layer]
        most = max(float(values.max()) for values in of_layer)
        for index, (axes, frame) in enumerate(zip(row, frames, strict=True)):
            _heat(axes, frame, maps[layer, knockout, index] / (most or 1.0))
        text = f"layer {layer + 1}\n{STATES[knockout]}\nlargest {100 * most:.2g}%"
        row[0].set_ylabel(text, fontsize=7, rotation=0, ha="right", va="center")
    for index, axes in enumerate(grid[0]):
        axes.set_title(f"frame {index + 1}", fontsize=8)
    scale = ScalarMappable(Normalize(0, 1), HEAT)
    bar = figure.colorbar(scale, ax=panels, orientation="horizontal", aspect=60, shrink=0.5)
    bar.set_label("attention weight as a share of the layer's largest", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    over = {MEAN: "mean over heads", MOST: "largest of any head"}
    which = over.get(at_head, f"head {at_head}, counted from 0")
    said = f"sample {drawable(pictures.sample_id)}; {about(chosen)}; {which}"
    headline(figure, "Attention to every video position, layers from 1", said, chosen)
    return figure


def _heat(axes: Axes, frame: np.ndarray, share: Float[np.ndarray, "rows columns"]) -> None:
    """A picture in grey with a colour over every grid place, the stronger the larger the share."""
    grey = np.repeat(frame.mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    axes.imshow(
        share,
        cmap=HEAT,
        vmin=0,
        vmax=1,
        alpha=0.15 + 0.6 * share,
        extent=draw_picture(axes, grey, *share.shape),
        aspect="auto",
        interpolation="nearest",
        zorder=2,
    )
