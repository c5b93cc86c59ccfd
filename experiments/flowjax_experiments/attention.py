"""Attention maps: what chosen tokens read of the frames, with and without a knockout."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Float

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.compilation import use_persistent_cache
from flowjax.edges import Knockout, parse_edges
from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout
from flowjax.lens.grid import frame_grids
from flowjax.lens.pictures import read_pictures
from flowjax.lens.read import AttentionReading, read_attention
from flowjax.models.checkpoint import LoadedModel, load_model
from flowjax.padding import bucket_rows, pad_prompt, padded_mask
from flowjax.progress import Advance
from flowjax.report.attention import (
    MEAN,
    VideoAttention,
    about,
    draw_attention,
    draw_attention_frames,
    video_attention,
)
from flowjax.runs.each_sample import Chosen, each_sample, is_chosen
from flowjax.sweeps.protocol import parse_heads
from flowjax_experiments.columns import documented, shared_columns
from flowjax_experiments.drawn import keep_drawn, print_notes, print_paths, read_drawn
from flowjax_experiments.printing import ends, print_table, yes
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

MOST_HEADS = 4
"""More heads than this are kept as rows but not drawn one by one."""

SCHEMA = documented(
    ("target", pa.string(), "the token group whose attention it is, averaged over its tokens"),
    ("knockout", pa.bool_(), "whether edges were cut"),
    ("edge", pa.string(), "the edges cut, source->target, joined by +; empty if none"),
    ("cut_layers", pa.string(), "the layers they were cut in, from 1, as FIRST-LAST; or empty"),
    ("layer", pa.int32(), "0-based"),
    ("head", pa.int32(), "0-based; -1 for the mean over heads"),
    ("frame", pa.int32(), "the frame that is read, 0-based"),
    ("attention", pa.float64(), "to all of the frame's tokens, 0 to 1"),
    ("rows", pa.int32(), "of the frame's grid"),
    ("columns", pa.int32(), "of the frame's grid"),
    ("weights", pa.list_(pa.float32()), "to the token of every grid place, row by row, 0 to 1"),
)


@dataclass(frozen=True)
class Asked:
    """As the command line gives it.

    target: a token group.
    heads: "mean", "all" or numbers such as "0,3" (0-based), beside the mean.
    cut: edges such as "video->question", and in cut_layers such as "6-20" (from 1); all layers
        where None.
    layers: drawn on the frames, from 1; some where empty.
    drawn: samples whose frames are drawn, the first ones.
    """

    model: Path
    questions: Selection
    target: str = "last"
    heads: str = "mean"
    cut: str | None = None
    cut_layers: str | None = None
    layers: tuple[int, ...] = ()
    drawn: int = 1


@dataclass(frozen=True)
class Reading:
    """What is read of each sample: the target's attention, in heads beside the mean, with a cut."""

    target: str
    heads: tuple[int, ...] = ()
    knockout: Knockout | None = None


def reading_of(asked: Asked, layers: int, heads: int) -> Reading:
    """Check what was asked against a model's layers and heads.

    Raises:
        FlowjaxError: a head, edge or layers that the model does not have or that have another form.
    """
    chosen = () if asked.heads == "mean" else parse_heads(asked.heads)
    numbers = tuple(range(heads)) if chosen == "all" else tuple(chosen or ())
    for head in numbers:
        if head >= heads:
            raise FlowjaxError(f"--head {head}: the model's heads are 0 to {heads - 1}")
    if asked.cut is None:
        if asked.cut_layers is not None:
            raise FlowjaxError("--cut-layers says where --cut is cut, which is absent")
        return Reading(asked.target, numbers)
    cut_layers = parse_layers(asked.cut_layers or f"1-{layers}", layers)
    return Reading(asked.target, numbers, Knockout(parse_edges(asked.cut), cut_layers))


def parse_layers(text: str, layers: int) -> tuple[int, ...]:
    """Read `"6-20"`, counted from 1 with both ends included, as layers counted from 0.

    Raises:
        FlowjaxError: the text has another form, or a layer that the model does not have.
    """
    match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= layers:
        raise FlowjaxError(
            f"--cut-layers {text!r}: write FIRST-LAST, both from 1 to {layers}, such as 1-{layers}"
        )
    return tuple(range(first - 1, last))


def run(asked: Asked, out: Path, *, overwrite: bool) -> list[VideoAttention]:
    """Read the attention of the target, for the questions answered correctly by default.

    Raises:
        FlowjaxError: a bad input.
    """
    use_persistent_cache()
    samples = asked.questions.read()
    loaded = load_model(asked.model)
    decoder = loaded.config.decoder
    reading = reading_of(asked, decoder.layers, decoder.heads)
    drawn = read_drawn(asked.layers, asked.drawn, depth=decoder.layers)
    chosen = asked.questions.chosen("correct")

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table | None:
        del advance
        return rows_of(loaded, prepared, reading, chosen=chosen)

    knockout = reading.knockout
    results = each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={
            "experiment": "attention",
            "target": reading.target,
            "heads": list(reading.heads),
            "cut": None if knockout is None else knockout.name,
            "cut_layers": None if knockout is None else list(knockout.layers),
            "chosen": chosen,
        },
        strict=asked.questions.strict or asked.questions.one,
        overwrite=overwrite,
    )
    keep_drawn(out, loaded, samples, results.rows, drawn)
    return report(out)


def rows_of(
    loaded: LoadedModel, prepared: AskedPrompt, reading: Reading, *, chosen: Chosen = "all"
) -> pa.Table | None:
    """The rows of one sample; None if its answer is not the one chosen.

    Raises:
        FlowjaxError: the prompt has no such target, or the knockout removes no edge of it.
    """
    layout = prepared.prompt.layout
    cuts: list[Knockout | None] = [None, *([reading.knockout] if reading.knockout else [])]
    read = [_read(loaded, prepared, reading.target, cut) for cut in cuts]
    base_id = int(read[0].logits.argmax())
    if not is_chosen(chosen, prepared.is_correct(base_id)):
        return None
    shared = shared_columns(loaded, prepared, base_id)
    grids = frame_grids(loaded.config, prepared.prompt, prepared.pixel_values.shape)
    frames = [np.flatnonzero(layout.cell == cell) for cell in layout.cells_of("video")]
    rows: list[dict[str, Any]] = []
    for cut, (attention, _) in zip(cuts, read, strict=True):
        of_heads = np.asarray(attention)
        condition = {
            "target": reading.target,
            "knockout": cut is not None,
            "edge": "" if cut is None else cut.name,
            "cut_layers": "" if cut is None else f"{cut.layers[0] + 1}-{cut.layers[-1] + 1}",
        }
        for head in (MEAN, *reading.heads):
            weights = of_heads.mean(1) if head == MEAN else of_heads[:, head]
            rows += [
                {**shared, **condition, "layer": layer, "head": head, **of_frame}
                for layer, row in enumerate(weights)
                for of_frame in _of_frames(row, frames, grids)
            ]
    return pa.Table.from_pylist(rows, SCHEMA)


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


def _read(
    loaded: LoadedModel, prepared: AskedPrompt, target: str, cut: Knockout | None
) -> AttentionReading:
    layout: TokenLayout = prepared.prompt.layout
    positions = layout.positions(target)
    # A few sizes share compiled code; what is added counts nothing.
    more = (0, bucket_rows(len(positions)) - len(positions))
    share = np.full(len(positions), 1 / len(positions), np.float32)
    return read_attention(
        loaded.model.decoder,
        pad_prompt(prepared.embedded),
        padded_mask(layout, () if cut is None else (cut,), loaded.config.decoder),
        jnp.asarray(np.pad(positions, more, mode="edge"), jnp.int32),
        jnp.asarray(np.pad(share, more)),
    )


def report(run: Path) -> list[VideoAttention]:
    """Draw the figures of a finished run and print the attention to the video at every layer.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table = read_results(run)
    figures = [draw_attention(table, run / "figures" / "attention.png")]
    heads = sorted(table["head"].unique().to_pylist())
    for index, pictures in enumerate(read_pictures(run)):
        for head in heads if len(heads) <= 1 + MOST_HEADS else [MEAN]:
            name = "mean" if head == MEAN else f"head-{head:02d}"
            path = run / "figures" / f"frames-{index:02d}-{name}.png"
            figures.append(draw_attention_frames(table, pictures, head, path))
    found = video_attention(table)
    print_notes(table)
    _print_attention(found, about(table))
    print_failures(run)
    print_paths(run, table, figures)
    return found


def _print_attention(found: Sequence[VideoAttention], what: str) -> None:
    print(what)
    columns = ["layer", "as it is", "95% interval"]
    if found[0].cut is not None:
        columns += ["edge cut", "change", "95% interval", "excludes 0"]
    rows = []
    for at in found:
        cells = [str(at.layer), f"{at.base.percent.mean:.2f}", ends(at.base.percent, ".2f")]
        if at.cut is not None and at.change is not None:
            cells += [
                f"{at.cut.percent.mean:.2f}",
                f"{at.change.percent.mean:+.2f}",
                ends(at.change.percent, "+.2f"),
                yes(at.change.excludes_zero),
            ]
        rows.append(cells)
    print_table(f"Attention to the video in percent, n = {found[0].base.n}", [], columns, rows)
