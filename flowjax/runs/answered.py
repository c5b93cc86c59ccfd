"""How the model answers a sample: kept in the metadata of its rows, which may be none."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

ANSWERED = b"flowjax.answered"
"""In the metadata of a part: how the model answers its sample, with the columns of `ACCURACY`."""

Answered = tuple[str, str]
"""Digest of a question and its video, and how it is answered: JSON, empty where nobody said."""

ACCURACY = pa.schema(
    [
        pa.field("sample_id", pa.string(), metadata={"doc": "the sample"}),
        pa.field("task", pa.string(), metadata={"doc": "its task"}),
        pa.field("options", pa.int32(), metadata={"doc": "how many options its question has"}),
        pa.field(
            "correct", pa.bool_(), metadata={"doc": "whether the model's own answer is right"}
        ),
    ]
)
"""Columns of `accuracy.parquet`: every sample asked, also those that have no rows."""


def answered(rows: pa.Table, said: Mapping[str, Any]) -> pa.Table:
    """Rows of a sample that say how it is answered.

    said: values of the columns of `ACCURACY`.
    """
    metadata = {**(rows.schema.metadata or {}), ANSWERED: json.dumps(said).encode()}
    return rows.replace_schema_metadata(metadata)


def answer_of(rows: pa.Table, made_of: str) -> Answered:
    """How a sample is answered, by the metadata of its rows.

    made_of: the digest of its question and video.
    """
    return made_of, (rows.schema.metadata or {}).get(ANSWERED, b"").decode()


def accuracy_of(answers: Mapping[int, Answered]) -> pa.Table | None:
    """How every sample is answered, also those without rows; None where it is not known of all."""
    found = [answers[index][1] for index in sorted(answers)]
    if not all(found) or not found:
        return None
    return pa.Table.from_pylist([json.loads(one) for one in found], ACCURACY)
