"""The rows of a sweep's results: one per sample, edge and window."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Array, Float, Int
from tokenizers import Tokenizer

from flowjax.asked.asked import Asked
from flowjax.files import printable
from flowjax.layout import TokenLayout
from flowjax.patches import Patch
from flowjax.sweeps.protocol import Cell, Protocol, token_named
from flowjax.token_text import answer_text, token_texts
from flowjax.version import __version__

ONCE = pa.dictionary(pa.int32(), pa.string())
"""Of columns whose texts are long and the same in many rows: each is held once."""

SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False, metadata={"doc": doc})
        for name, kind, doc in [
            ("sample_id", pa.string(), "the sample"),
            ("task", pa.string(), "its task"),
            ("video", ONCE, "path of its video, as it was given"),
            ("prompt", ONCE, "what the model reads, with a placeholder for the video"),
            ("num_frames", pa.int32(), "frames of the video that the model was shown"),
            ("video_tokens", pa.int32(), "positions of the video in the prompt"),
            ("edge_set", pa.string(), "the edge set that the edge is reported under"),
            ("edge", pa.string(), "the edges cut, joined by +; of a patch, site:positions"),
            ("token", pa.string(), "text of the single tokens that the edges name, if any"),
            ("head", pa.int32(), "the head they are cut in, 0-based; -1 for all"),
            ("centre", pa.int32(), "the window's centre layer, 0-based"),
            ("width", pa.int32(), "the window's width in layers"),
            ("style", pa.string(), "how centre and width give layers"),
            ("base_answer", pa.string(), "most probable next token without knockout"),
            ("base_id", pa.int32(), "its token id"),
            ("new_answer", pa.string(), "most probable next token with it"),
            ("new_id", pa.int32(), "its token id"),
            ("new_correct", pa.bool_(), "whether it is the true option's letter"),
            ("true_answer", pa.string(), "letter of the true option; empty where it is not known"),
            ("correct", pa.bool_(), "whether the base answer is the true option's letter"),
            ("base_probability", pa.float64(), "probability of the base answer, 0 to 1"),
            ("new_probability", pa.float64(), "the same with the knockout"),
            ("relative_change", pa.float64(), "(new - base) * 100 / base, percent"),
            ("base_probability_true", pa.float64(), "of the true letter, 0 to 1; NaN if not known"),
            ("new_probability_true", pa.float64(), "the same with the knockout"),
            ("relative_change_true", pa.float64(), "(new - base) * 100 / base, percent"),
            ("model", pa.string(), "the model's name"),
            ("model_note", pa.string(), "what to know about the model when reading results"),
            ("version", pa.string(), "flowjax version"),
        ]
    ]
)
"""Columns of `results.parquet`; each field's metadata says what it holds."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a sweep keeps of the logits at the last position.

    base_id: most probable token without knockout; base, base_true: its and the true letter's
    probability. new_id int32 [k], new, new_true float32 [k]: the same under each knockout.
    """

    base_id: int
    base: float
    base_true: float
    new_id: Int[np.ndarray, " k"]
    new: Float[np.ndarray, " k"]
    new_true: Float[np.ndarray, " k"]


@jax.jit
def read_out(
    logits: Float[Array, "batch vocabulary"], base_id: Int[Array, ""], true_id: Int[Array, ""]
) -> tuple[Int[Array, " batch"], Float[Array, " batch"], Float[Array, " batch"]]:
    """The most probable token, and the probabilities of the base answer and the true letter."""
    probability = jax.nn.softmax(logits, axis=-1)
    return jnp.argmax(logits, axis=-1), probability[:, base_id], probability[:, true_id]


def result_table(
    prepared: Asked,
    layout: TokenLayout,
    protocol: Protocol,
    cells: Sequence[Cell],
    outcome: Outcome,
    tokenizer: Tokenizer,
    *,
    model: str,
    note: str,
) -> pa.Table:
    """The rows of one sample, in the order of `cells`; `layout` is the one they were made for."""
    sample = prepared.sample
    base_answer = answer_text(tokenizer, outcome.base_id)
    true_answer = sample.question.answer or ""
    size = len(cells)
    new_answers = answer_texts(tokenizer, outcome.new_id)
    right = {token: prepared.is_correct(token) for token in set(outcome.new_id.tolist())}
    named_in = [
        [] if isinstance(cell.knockout, Patch) else token_named(cell.knockout.edges)
        for cell in cells
    ]
    named = {name for names in named_in for name in names}
    text_of = {
        name: tokenizer.decode(
            prepared.prompt.ids[layout.positions(name)].tolist(), skip_special_tokens=False
        )
        for name in named
    }
    columns = {
        "sample_id": [sample.sample_id] * size,
        "task": [sample.task] * size,
        "video": [printable(sample.video)] * size,
        "prompt": [prepared.prompt.text] * size,
        "num_frames": [len(prepared.frames)] * size,
        "video_tokens": [len(prepared.prompt.video_position)] * size,
        "edge_set": [cell.edge_set for cell in cells],
        "edge": [cell.knockout.name for cell in cells],
        "token": [" ".join(text_of[name] for name in names) for names in named_in],
        "head": [cell.head for cell in cells],
        "centre": [cell.centre for cell in cells],
        "width": [protocol.width] * size,
        "style": [protocol.style] * size,
        "base_answer": [base_answer] * size,
        "base_id": [outcome.base_id] * size,
        "new_answer": new_answers,
        "new_id": outcome.new_id,
        "new_correct": [right[token] for token in outcome.new_id.tolist()],
        "true_answer": [true_answer] * size,
        "correct": [prepared.is_correct(outcome.base_id)] * size,
        "base_probability": [outcome.base] * size,
        "new_probability": outcome.new.astype(np.float64),
        "relative_change": relative_change(outcome.base, outcome.new),
        "base_probability_true": [outcome.base_true] * size,
        "new_probability_true": outcome.new_true.astype(np.float64),
        "relative_change_true": relative_change(outcome.base_true, outcome.new_true),
        "model": [model] * size,
        "model_note": [note] * size,
        "version": [__version__] * size,
    }
    return pa.table(columns, schema=SCHEMA)


def answer_texts(tokenizer: Tokenizer, ids: Int[np.ndarray, " k"]) -> list[str]:
    """Every id as an answer's text; see `answer_text`."""
    return [text.strip() for text in token_texts(tokenizer, ids.tolist())]


def relative_change(base: float, new: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Change of a probability in percent of the base: float64 [k]; 0 where both are 0."""
    new64 = new.astype(np.float64)
    if base == 0:
        return np.where(new64 == 0, 0.0, np.inf)
    return (new64 - base) * 100 / base
