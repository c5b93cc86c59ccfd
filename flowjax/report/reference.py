"""A sweep's rows as the records that the published code writes, for those who read its files.

    <dataset>/<edge set>/<model>/jsons/<number of the task>_<task>.json

A file is a list of records, one for every question, edge and window; layers count from 0 and scores
are fractions. As there, `acc_base` and `acc` are the accuracy of the task without a knockout and
with it, at the record's layer; here they are over the questions that were swept.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from flowjax.errors import FlowjaxError
from flowjax.files import atomically, writing
from flowjax.report.arrays import grouped

NAMES = {
    "cross_frame": "No cross-frame interactions",
    "video->question": "Video -/-> Question",
    "video->last": "Video -/-> Last",
    "question->last": "Question -/-> Last",
    "last->last": "Last -/-> Last",
    "question_stem->last": "Non-option question -/-> Last",
    "true_option->last": "True option -/-> Last",
    "false_options->last": "False option -/-> Last",
    "video->question_stem": "Video -/-> Non-option question",
    "question_stem->true_option": "Non-option question -/-> True option",
    "video->true_option": "Video -/-> True option",
}
"""What the published code calls the edges of the paper."""

FIELDS = {
    "layer": "centre",
    "base_score": "base_probability",
    "new_score": "new_probability",
    "relative_diff": "relative_change",
    "gt_score": "base_probability_true",
    "new_score_gt": "new_probability_true",
    "relative_diff_gt": "relative_change_true",
    "gt": "true_answer",
    "base_answer": "base_answer",
    "new_answer": "new_answer",
    "prompt": "prompt",
    "video_path": "video",
}
"""Fields of a record, and the columns that they are."""


def write_records(table: pa.Table, folder: Path) -> list[Path]:
    """Write a sweep's rows in that layout into a folder.

    Files are written complete or not at all; those of another run stay where their names differ.

    Raises:
        FlowjaxError: no rows, or a file that cannot be written.
    """
    if not table.num_rows:
        raise FlowjaxError("the results hold no rows to write")
    paths = []
    for number, (task, of_task) in enumerate(grouped(table, "task").items()):
        for edge_set, rows in grouped(of_task, "edge_set").items():
            for model, some in grouped(rows, "model").items():
                name = f"{number:02d}_{task or 'question'}.json"
                parts = _dataset(some), edge_set, PurePath(model).name, "jsons", name
                path = folder.joinpath(*parts)
                text = json.dumps(records(some), indent=1, allow_nan=False)
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    atomically(path, lambda out, text=text: out.write_text(text, "utf-8"))
                paths.append(path)
    return paths


def records(table: pa.Table) -> list[dict[str, Any]]:
    """The records of one task and edge set, in the order of the rows; unknown numbers are null."""
    rows = table.to_pylist()
    right: dict[tuple[Any, ...], list[bool]] = {}
    for row in rows:
        right.setdefault(_place(row), []).append(row["new_correct"])
    base = list({row["sample_id"]: row["correct"] for row in rows}.values())
    return [
        {name: _known(row[column]) for name, column in FIELDS.items()}
        | {
            "block_desc": _described(row),
            "data_id": _number(row["sample_id"]),
            "acc_base": _share(base),
            "acc": _share(right[_place(row)]),
        }
        for row in rows
    ]


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["edge"], row["head"], row["centre"]


def _described(row: dict[str, Any]) -> str:
    edge: str = row["edge"]
    name = NAMES.get(edge, edge.replace("->", " -/-> "))
    return name if row["head"] < 0 else f"{name}, head {row['head']}"


def _number(sample: str) -> int | str:
    """A question's number in its task; a name that has none stays as it is."""
    number = sample.rpartition("/")[2]
    return int(number) if number.isdecimal() else sample


def _dataset(table: pa.Table) -> str:
    """The benchmark's name: of the folder that has `video/<task>/`."""
    path, task = PurePath(table["video"][0].as_py()), table["task"][0].as_py()
    for folder in path.parents:
        if folder.parts[-2:] == ("video", task):
            return folder.parents[1].name or "benchmark"
    return "benchmark"


def _known(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)
