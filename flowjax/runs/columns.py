"""Columns that the rows of every analysis have, and schemas whose columns are documented."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from flowjax.asked.asked import Asked
from flowjax.files import printable
from flowjax.sweeps.rows import ONCE
from flowjax.version import __version__

Column = tuple[str, pa.DataType, str]
"""Name, type, and what it holds."""

OF_SAMPLE: tuple[Column, ...] = (
    ("sample_id", pa.string(), "the sample"),
    ("task", pa.string(), "its task"),
    ("video", ONCE, "path of its video, as it was given"),
    ("prompt", ONCE, "what the model reads, with a placeholder for the video"),
    ("num_frames", pa.int32(), "frames of the video that the model was shown"),
    ("video_tokens", pa.int32(), "positions of the video in the prompt"),
)
OF_ANSWER: tuple[Column, ...] = (
    ("base_answer", pa.string(), "most probable next token of the model as it is"),
    ("base_id", pa.int32(), "its token id"),
    ("true_answer", pa.string(), "letter of the true option"),
    ("correct", pa.bool_(), "whether the base answer is the true option's letter"),
)
OF_MODEL: tuple[Column, ...] = (
    ("model", pa.string(), "the model's name"),
    ("model_note", pa.string(), "what to know about the model when reading results"),
    ("version", pa.string(), "flowjax version"),
)


def schema(*columns: Column) -> pa.Schema:
    """Columns that hold no nulls; each one's metadata says what it holds."""
    return pa.schema(
        [pa.field(name, kind, nullable=False, metadata={"doc": doc}) for name, kind, doc in columns]
    )


def documented(*own: Column) -> pa.Schema:
    """The schema of an analysis: the sample's columns, its own, the answer's, the model's."""
    return schema(*OF_SAMPLE, *own, *OF_ANSWER, *OF_MODEL)


def shared_columns(asked: Asked, base_id: int | None) -> dict[str, Any]:
    """What every row of a sample has in common, by column.

    base_id: the model's most probable next token; None where no answer is judged.
    """
    columns = {
        "sample_id": asked.sample.sample_id,
        "task": asked.sample.task,
        "video": printable(asked.sample.video),
        "prompt": asked.prompt.text,
        "num_frames": len(asked.frames),
        "video_tokens": len(asked.prompt.video_position),
        "model": asked.model.name,
        "model_note": asked.note,
        "version": __version__,
    }
    if base_id is None:
        return columns
    return columns | {
        "base_answer": asked.text_of(base_id),
        "base_id": base_id,
        "true_answer": asked.question.answer,
        "correct": asked.is_correct(base_id),
    }


def make_table(
    rows: list[dict[str, Any]] | dict[str, Any] | pa.Table,
    shared: Mapping[str, Any],
    schema: pa.Schema,
) -> pa.Table:
    """Rows with the shared columns that they lack.

    rows: mappings, columns of equal length by name, or the whole table.
    """
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, list):
        return pa.Table.from_pylist([{**shared, **row} for row in rows], schema)
    size = len(next(iter(rows.values())))
    every = {
        name: pa.repeat(pa.scalar(value), size).cast(schema.field(name).type)
        for name, value in shared.items()
        if name in schema.names
    } | rows
    return pa.table({name: every[name] for name in schema.names}, schema=schema)
