"""Logit lens: the words that video positions read as, layer by layer (section 4 of the paper)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Int

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.compilation import use_persistent_cache
from flowjax.errors import FlowjaxError
from flowjax.lens.grid import frame_grids
from flowjax.lens.pictures import read_pictures
from flowjax.lens.project import Through
from flowjax.lens.read import read_lens
from flowjax.lens.words import KINDS, Words, matching_ids, read_words, words_for
from flowjax.models.checkpoint import LoadedModel, load_model
from flowjax.padding import LENGTH_STEP, pad_prompt, round_up
from flowjax.progress import Advance
from flowjax.report.lens import WordShare, draw_overlay, draw_words, word_shares
from flowjax.runs.each_sample import Chosen, each_sample, is_chosen
from flowjax.sweeps.rows import decode_each
from flowjax_experiments.columns import documented, shared_columns
from flowjax_experiments.drawn import keep_drawn, print_notes, print_paths, read_drawn
from flowjax_experiments.printing import ends, print_table, yes
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

SCHEMA = documented(
    ("layer", pa.int32(), "the layer that reads the state, 0-based; the last: its normed output"),
    ("position", pa.int32(), "of the token in the prompt, 0-based"),
    ("frame", pa.int32(), "the frame that it belongs to, 0-based"),
    ("row", pa.int32(), "its place in the frame's grid, 0-based; -1 for text among the frames"),
    ("column", pa.int32(), "its place in the frame's grid, 0-based; -1 for text among the frames"),
    ("token_ids", pa.list_(pa.int32()), "the most probable tokens, the first the most"),
    ("tokens", pa.list_(pa.string()), "their texts"),
    ("probabilities", pa.list_(pa.float32()), "their probabilities, 0 to 1"),
    ("spatial_rank", pa.int32(), "rank from 0 of the first spatial word among them; -1: none"),
    ("temporal_rank", pa.int32(), "rank from 0 of the first temporal word among them; -1: none"),
    ("spatial_vocabulary", pa.float64(), "share of the vocabulary that is spatial words"),
    ("temporal_vocabulary", pa.float64(), "share of the vocabulary that is temporal words"),
)


@dataclass(frozen=True)
class Asked:
    """As the command line gives it.

    through: "input" or "output", see `flowjax.lens.project.logit_lens`.
    words: a file of the user's own words.
    layers: whose words are written on the frames, as figures number them; some where empty.
    drawn: samples whose frames are drawn, the first ones.
    """

    model: Path
    questions: Selection
    through: str = "input"
    top_k: int = 10
    words: Path | None = None
    layers: tuple[int, ...] = ()
    drawn: int = 1


WordIds = Mapping[str, Int[np.ndarray, " ids"]]
"""Token ids that are words of each kind."""


def word_ids(loaded: LoadedModel, tasks: Iterable[str], own: Words | None) -> dict[str, WordIds]:
    """The token ids that are words of each kind, by task.

    own: the user's words, for every task.
    """
    texts = decode_each(loaded.tokenizer, np.arange(loaded.config.decoder.vocabulary))
    return {
        task: {kind: matching_ids(words_for(task, own).of(kind), texts) for kind in KINDS}
        for task in tasks
    }


def run(asked: Asked, out: Path, *, overwrite: bool) -> list[WordShare]:
    """Read every video position at every layer.

    Raises:
        FlowjaxError: a bad input.
    """
    use_persistent_cache()
    if asked.through not in get_args(Through):
        raise FlowjaxError(f"--through {asked.through!r}: choose {' or '.join(get_args(Through))}")
    own = None if asked.words is None else read_words(asked.words)
    samples = asked.questions.read()
    loaded = load_model(asked.model)
    decoder = loaded.config.decoder
    if not 1 <= asked.top_k <= decoder.vocabulary:
        raise FlowjaxError(f"--top-k {asked.top_k}: give 1 to {decoder.vocabulary} tokens")
    drawn = read_drawn(asked.layers, asked.drawn, depth=decoder.layers)
    chosen = asked.questions.chosen("all")
    through = cast(Through, asked.through)
    words = word_ids(loaded, sorted({sample.task for sample in samples}), own)

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table | None:
        del advance
        ids = words[prepared.sample.task]
        return rows_of(loaded, prepared, ids, k=asked.top_k, through=through, chosen=chosen)

    results = each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={
            "experiment": "lens",
            "through": through,
            "top_k": asked.top_k,
            "words": {
                task: {kind: sorted(words_for(task, own).of(kind)) for kind in KINDS}
                for task in words
            },
            "chosen": chosen,
        },
        strict=asked.questions.strict or asked.questions.one,
        overwrite=overwrite,
    )
    keep_drawn(out, loaded, samples, results.rows, drawn)
    return report(out)


def rows_of(
    loaded: LoadedModel,
    prepared: AskedPrompt,
    words: WordIds,
    *,
    k: int = 10,
    through: Through = "input",
    chosen: Chosen = "all",
) -> pa.Table | None:
    """The rows of one sample, layer by layer; None if its answer is not the one chosen.

    words: of the sample's task.
    """
    positions = prepared.prompt.layout.positions("video")
    count = len(positions)
    padded = np.pad(positions, (0, round_up(count, LENGTH_STEP) - count), mode="edge")
    read = read_lens(
        loaded.model.decoder,
        pad_prompt(prepared.embedded),
        jnp.asarray(padded, jnp.int32),
        k=k,
        through=through,
    )
    base_id = int(read.logits.argmax())
    if not is_chosen(chosen, prepared.is_correct(base_id)):
        return None
    ids, probability = (np.asarray(part)[:, :count] for part in read.top)
    layers = len(ids)
    size = layers * count
    places = _places(loaded, prepared, positions)
    columns: dict[str, object] = {
        name: [value] * size for name, value in shared_columns(loaded, prepared, base_id).items()
    }
    columns |= {"layer": np.repeat(np.arange(layers), count)}
    names = ("position", "frame", "row", "column")
    columns |= dict(zip(names, np.tile(places, (1, layers)), strict=True))
    columns |= {
        "token_ids": _lists(pa.array(ids.ravel(), pa.int32()), k),
        "tokens": _lists(_texts(loaded, ids), k),
        "probabilities": _lists(pa.array(probability.ravel(), pa.float32()), k),
    }
    for kind, members in words.items():
        found = np.isin(ids, members).reshape(size, k)
        columns[f"{kind}_rank"] = np.where(found.any(-1), found.argmax(-1), -1)
        columns[f"{kind}_vocabulary"] = [len(members) / loaded.config.decoder.vocabulary] * size
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def _places(
    loaded: LoadedModel, prepared: AskedPrompt, positions: Int[np.ndarray, " p"]
) -> Int[np.ndarray, "4 p"]:
    """Position, frame, row and column of every video position."""
    layout = prepared.prompt.layout
    frame = {cell: index for index, cell in enumerate(layout.cells_of("video"))}
    grids = frame_grids(loaded.config, prepared.prompt, prepared.pixel_values.shape)
    place = np.full((2, layout.length), -1)
    place[:, grids] = np.indices(grids.shape)[1:]
    frames = np.array([frame[cell] for cell in layout.cell[positions].tolist()])
    return np.stack([positions, frames, *place[:, positions]])


def _texts(loaded: LoadedModel, ids: Int[np.ndarray, "layers p k"]) -> pa.Array:
    unique, index = np.unique(ids, return_inverse=True)
    texts = pa.array(decode_each(loaded.tokenizer, unique), pa.string())
    return texts.take(pa.array(index.ravel()))


def _lists(values: pa.Array, k: int) -> pa.Array:
    """Lists of k values each."""
    return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, k, dtype=np.int32), values)


def report(run: Path) -> list[WordShare]:
    """Draw the figures of a finished run and print how often such words occur.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table = read_results(run)
    figures = [draw_words(table, run / "figures" / "words.png")]
    for index, pictures in enumerate(read_pictures(run)):
        for layer in pictures.layers:
            path = run / "figures" / f"overlay-{index:02d}-layer-{layer + 1:02d}.png"
            figures.append(draw_overlay(table, pictures, layer, path))
    found = word_shares(table)
    print_notes(table)
    _print_shares(found)
    print_failures(run)
    print_paths(run, table, figures)
    return found


def _print_shares(found: Sequence[WordShare]) -> None:
    for kind in KINDS:
        of_kind = [at for at in found if at.kind == kind]
        n = of_kind[0].share.n
        print_table(
            f"Video positions with a {kind} word on top, n = {n}",
            [],
            ["layer", "share %", "since layer 1", "95% interval", "excludes 0"],
            [
                [
                    str(at.layer),
                    f"{at.share.percent.mean:.1f}",
                    f"{at.change.percent.mean:+.1f}",
                    ends(at.change.percent, "+.1f"),
                    yes(at.change.excludes_zero),
                ]
                for at in of_kind
            ],
        )
