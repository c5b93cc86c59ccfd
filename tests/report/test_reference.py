"""A sweep's rows in the layout of the published code's records."""

import json
import math

import pyarrow as pa
import pytest

from flowjax.errors import FlowjaxError
from flowjax.layer_windows import EDGE_SETS
from flowjax.report.reference import NAMES, write_records
from tests.report.tables import sweep_table

EDGES = {"vql-to-ql": ["video->question", "question->last"], "cross-frame": ["cross_frame"]}
FIELDS = {
    "prompt", "block_desc", "layer", "base_score", "new_score", "relative_diff", "gt_score",
    "new_score_gt", "relative_diff_gt", "data_id", "gt", "base_answer", "new_answer", "acc_base",
    "acc", "video_path",
}  # fmt: skip


def falls(edge: str, sample: int, layer: int) -> float:
    return -10.0 * layer - 10.0 * sample


def of_task(table: pa.Table, task: str) -> pa.Table:
    columns = {
        "task": [task] * len(table),
        "sample_id": [f"{task}/{name[1:]}" for name in table["sample_id"].to_pylist()],
        "video": [f"/data/TVBench/video/{task}/clips/a.mp4"] * len(table),
    }
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(name)
        table = table.set_column(at, field, pa.array(values, field.type))
    return table


def test_a_file_for_every_task_and_edge_set(tmp_path):
    table = pa.concat_tables([of_task(sweep_table(EDGES, falls), t) for t in ("moves", "counts")])
    paths = write_records(table, tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in paths) == [
        f"TVBench/{edge_set}/a-model/jsons/{name}"
        for edge_set in ("cross-frame", "vql-to-ql")
        for name in ("00_moves.json", "01_counts.json")
    ]
    records = json.loads((tmp_path / "TVBench/vql-to-ql/a-model/jsons/01_counts.json").read_text())
    assert len(records) == 4 * 2 * 5
    assert all(set(record) == FIELDS for record in records)
    (one,) = (
        record
        for record in records
        if (record["data_id"], record["layer"]) == (3, 2)
        and record["block_desc"] == "Video -/-> Question"
    )
    assert one["relative_diff"] == -50
    assert (one["base_score"], one["new_score"]) == (0.5, 0.25)
    assert one["video_path"] == "/data/TVBench/video/counts/clips/a.mp4"
    # At layer 2 samples 0 to 3 fall by 20 to 50 %, and those by less than 25 stay right.
    assert (one["acc_base"], one["acc"]) == (1, 0.25)


def test_every_edge_of_the_paper_has_its_name():
    assert {edge for edges in EDGE_SETS.values() for edge in edges} == set(NAMES)


def test_other_edges_heads_and_unknown_numbers(tmp_path):
    table = sweep_table({"custom": ["frame_0->last"]}, samples=1, heads=(3,))
    at = table.schema.get_field_index("base_probability_true")
    table = table.set_column(at, table.schema.field(at), pa.array([math.nan] * len(table)))
    (path,) = write_records(table, tmp_path)
    assert path.relative_to(tmp_path).as_posix() == (
        "benchmark/custom/a-model/jsons/00_question.json"
    )
    records = json.loads(path.read_text())
    assert records[0]["block_desc"] == "frame_0 -/-> last, head 3"
    assert records[0]["data_id"] == "s0"
    assert records[0]["gt_score"] is None


def test_no_rows(tmp_path):
    with pytest.raises(FlowjaxError, match="no rows"):
        write_records(sweep_table(EDGES).slice(0, 0), tmp_path)
