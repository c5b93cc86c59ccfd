"""Columns that the rows of every analysis have, and schemas whose columns are documented."""

from typing import Any

import pyarrow as pa

from flowjax.asked.asked import Asked
from flowjax.models.checkpoint import LoadedModel
from flowjax.version import __version__

Column = tuple[str, pa.DataType, str]
"""Name, type, and what it holds."""

OF_SAMPLE: tuple[Column, ...] = (
    ("sample_id", pa.string(), "the sample"),
    ("task", pa.string(), "its task"),
)
OF_ANSWER: tuple[Column, ...] = (
    ("base_answer", pa.string(), "most probable next token of the model as it is"),
    ("true_answer", pa.string(), "letter of the true option"),
    ("correct", pa.bool_(), "whether the base answer is the true option's letter"),
    ("model", pa.string(), "the model's name"),
    ("model_note", pa.string(), "what to know about the model when reading results"),
    ("version", pa.string(), "flowjax version"),
)


def documented(*own: Column) -> pa.Schema:
    """The schema of an analysis: the sample's columns, its own, the answer's.

    Each field's metadata says what it holds.
    """
    return pa.schema(
        [
            pa.field(name, kind, nullable=False, metadata={"doc": doc})
            for name, kind, doc in (*OF_SAMPLE, *own, *OF_ANSWER)
        ]
    )


def shared_columns(loaded: LoadedModel, prepared: Asked, base_id: int) -> dict[str, Any]:
    """What every row of a sample has in common, by column.

    base_id: the model's most probable next token.
    """
    true_answer = prepared.sample.question.answer
    assert true_answer is not None
    return {
        "sample_id": prepared.sample.sample_id,
        "task": prepared.sample.task,
        "base_answer": loaded.tokenizer.decode([base_id]).strip(),
        "true_answer": true_answer,
        "correct": prepared.is_correct(base_id),
        "model": loaded.name,
        "model_note": loaded.note,
        "version": __version__,
    }
