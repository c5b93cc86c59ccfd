"""What knockouts do to several models of one recipe at once, on the benchmark's own questions.

For the table of controls: scenes are painted as in training, without noise and H.264, and whole
forwards are run. The pair itself is judged and analysed by the commands that anyone has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from flowjax.data.prompt import VideoShape
from flowjax.data.shapes.benchmark import TASKS, benchmark_question
from flowjax.data.shapes.paint import paint
from flowjax.data.shapes.scene import Tracks, tracks
from flowjax.edges import Knockout, edge_mask
from flowjax.layer_windows import windows
from flowjax.layout import TokenLayout, encode_prompt
from flowjax.masks import EdgeMask
from flowjax.models.embedded import Embedded
from flowjax.models.families import pllava
from flowjax.padding import round_up
from flowjax.train.parameters import Parameters
from flowjax_experiments.shapes.batches import frame_times
from flowjax_experiments.shapes.model import MEAN, STD
from flowjax_experiments.shapes.texts import Texts

EDGES = ("cross_frame", "video->question", "question->last")
WINDOW = 3
STEP = 8
"""Lengths of prompts are rounded up to it."""

NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("model", NAME),
        ("task", NAME),
        ("question", pa.int16()),
        ("cut", NAME),
        ("first", pa.int8()),
        ("last", pa.int8()),
        ("right", pa.bool_()),
        ("probability", pa.float32()),
    ]
)
"""One row per model, question and knockout: the edge cut ("" for none) in layers `first` to `last`,
counted from 1; whether the answer is right, and the true letter's probability (four digits)."""


class Asked(NamedTuple):
    """Questions on a leading axis.

    ids, group: int32 [n, length], tokens and index into the cells of `layout`. last: int32 [n].
    true: int32 [n], token of the true letter.
    """

    scenes: Tracks
    ids: Int[np.ndarray, "n length"]
    group: Int[np.ndarray, "n length"]
    last: Int[np.ndarray, " n"]
    true: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Questions:
    """Of some tasks, by task; layout: of a question that has every cell."""

    layout: TokenLayout
    of: Mapping[str, Asked]


def ask_all(texts: Texts, *, split: str, per_task: int, seed: int = 0) -> Questions:
    """The benchmark's questions."""
    times = frame_times(texts.config.frames)
    found, whole = {}, None
    for task in TASKS:
        drawn = [benchmark_question(task, turn, split=split, seed=seed) for turn in range(per_task)]
        scenes = [tracks(scene, times) for scene, _ in drawn]
        prompts = []
        for _, question in drawn:
            prompt = pllava.prompt(texts.config, question, VideoShape((), ()))
            prompts.append(encode_prompt(prompt, texts.tokenizer))
            if len(question.options) == 4:
                whole = whole or prompts[-1].layout
        true = [texts.tokenizer.token_to_id(question.answer or "") for _, question in drawn]
        found[task] = scenes, prompts, true
    assert whole is not None
    longest = max(len(prompt.ids) for _, prompts, _ in found.values() for prompt in prompts)
    length = round_up(longest, STEP)
    asked = {
        task: Asked(
            Tracks(*(np.stack(part) for part in zip(*scenes, strict=True))),
            np.stack([np.pad(p.ids, (0, length - len(p.ids))) for p in prompts]).astype(np.int32),
            np.stack([_groups(p.layout, whole, length) for p in prompts]),
            np.array([len(p.ids) - 1 for p in prompts], np.int32),
            np.array(true, np.int32),
        )
        for task, (scenes, prompts, true) in found.items()
    }
    return Questions(whole, asked)


def _groups(layout: TokenLayout, whole: TokenLayout, length: int) -> Int[np.ndarray, " length"]:
    index = np.array([whole.cells.index(name) for name in layout.cells], np.int32)
    return np.pad(index[layout.cell], (0, length - layout.length))


class Cut(NamedTuple):
    """An edge cut in layers `first` to `last`, 0-based; none where the edge has no name."""

    edge: str
    first: int
    last: int

    def allowed(self, layout: TokenLayout, layers: int) -> Bool[np.ndarray, "layers 1 g g"]:
        """The table of its mask."""
        knockouts = [Knockout(self.edge, range(self.first, self.last + 1))] if self.edge else []
        table = edge_mask(layout, knockouts, layers=layers, heads=1).allowed
        return np.broadcast_to(np.asarray(table), (layers, 1, *table.shape[-2:]))


def few_cuts(layers: int) -> list[Cut]:
    """Nothing, and cross-frame edges in all layers and in either half."""
    half = layers // 2
    cross = [(0, layers - 1), (0, half - 1), (half, layers - 1)]
    return [Cut("", 0, 0), *(Cut("cross_frame", *ends) for ends in cross)]


def all_cuts(layers: int) -> list[Cut]:
    """Besides, every edge in every window of layers."""
    ends = [(window[0], window[-1]) for window in windows(WINDOW, "center", layers)]
    return few_cuts(layers) + [Cut(edge, *window) for edge in EDGES for window in ends]


def effects(
    texts: Texts,
    graph: nnx.GraphDef,
    tower: Parameters,
    decoders: Mapping[str, Parameters],
    questions: Questions,
    cuts: Sequence[Cut],
    *,
    at_once: int,
) -> pa.Table:
    """The rows of `SCHEMA`.

    Args:
        texts: with the models' configuration.
        graph: of a whole model.
        tower: parameters of a whole model, whose decoder is replaced.
        decoders: by the model's name.
        questions: see `ask_all`.
        cuts: knockouts.
        at_once: questions computed at a time.
    """
    config, where = texts.config, jnp.asarray(texts.video_position)
    layers = config.decoder.layers
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *decoders.values())

    @jax.jit
    def shown(tower: Parameters, scenes: Tracks) -> Array:
        model = nnx.merge(graph, tower)
        size = model.vision.config.image_size
        frames = jnp.round(jax.vmap(lambda scene: paint(scene, size))(scenes)) / 255
        pixels = jnp.moveaxis((frames - jnp.asarray(MEAN)) / jnp.asarray(STD), -1, -3)
        return jax.vmap(model.encode_video)(pixels)

    @jax.jit
    def answers(decoders: Parameters, asked: Asked, video: Array, allowed: Array) -> Array:
        def one(decoder: Parameters, asked: Asked, video: Array) -> Array:
            model = nnx.merge(graph, {**tower, "decoder": decoder})
            x = model.embed(jnp.asarray(asked.ids), where, video)
            trace = model.decoder(Embedded.of(x), EdgeMask(jnp.asarray(asked.group), allowed))
            logits = model.decoder.logits(trace.output[asked.last][None])[0]
            probability = jax.nn.softmax(logits)[asked.true]
            return jnp.stack([(jnp.argmax(logits) == asked.true).astype(jnp.float32), probability])

        every = jax.vmap(one, in_axes=(None, 0, 0))
        return jax.vmap(every, in_axes=(0, None, None))(decoders, asked, video)

    tables = [jnp.asarray(cut.allowed(questions.layout, layers)) for cut in cuts]
    parts = []
    for task, asked in questions.of.items():
        count = len(asked.true)
        for start in range(0, count, at_once):
            some = jax.tree.map(jnp.asarray, _some(asked, slice(start, start + at_once)))
            video = shown(tower, some.scenes)
            found = np.stack([np.asarray(answers(stacked, some, video, table)) for table in tables])
            parts.append(_rows(found, task, start, list(decoders), cuts))
    return pa.concat_tables(parts)


def _some(asked: Asked, rows: slice) -> Asked:
    return jax.tree.map(lambda leaf: leaf[rows], asked)


def _rows(
    found: Float[np.ndarray, "cuts models n 2"],
    task: str,
    start: int,
    models: Sequence[str],
    cuts: Sequence[Cut],
) -> pa.Table:
    cut, model, question = (index.ravel() for index in np.indices(found.shape[:3]))
    names = np.array(models)[model]
    columns = [
        names,
        np.full(len(names), task),
        (question + start).astype(np.int16),
        np.array([of.edge for of in cuts])[cut],
        np.array([of.first + 1 for of in cuts], np.int8)[cut],
        np.array([of.last + 1 for of in cuts], np.int8)[cut],
        found[..., 0].ravel() > 0.5,
        np.round(found[..., 1].ravel(), 4).astype(np.float32),
    ]
    arrays = [
        pa.array(column).dictionary_encode() if of.type == NAME else pa.array(column).cast(of.type)
        for column, of in zip(columns, SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def accuracy_by_cut(table: pa.Table) -> dict[str, dict[str, dict[str, float]]]:
    """Share of right answers by model, task and name of the cut, such as `cross_frame 1-8`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    keys = ["model", "task", "cut", "first", "last"]
    names = [
        column.cast(pa.string()) if column.type == NAME else column for column in table.columns
    ]
    flat = pa.table(names, table.column_names)
    flat = flat.set_column(len(keys) + 1, "hit", table["right"].cast(pa.int32()))
    means = flat.group_by(keys, use_threads=False).aggregate([("hit", "mean")])
    for row in means.to_pylist():
        cut = f"{row['cut']} {row['first']}-{row['last']}" if row["cut"] else "none"
        found.setdefault(row["model"], {}).setdefault(row["task"], {})[cut] = row["hit_mean"]
    return found
