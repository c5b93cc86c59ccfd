import errno
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowjax import files
from flowjax.errors import FlowjaxError
from flowjax.runs import store as store_module
from flowjax.runs.store import RunStore

SCHEMA = pa.schema([("sample", pa.int64()), ("value", pa.float64())])
SETTINGS = {"model": "m", "window": 3, "edges": ["a", "b"]}


def rows(sample):
    return pa.table({"sample": [sample] * 2, "value": [1.0, 2.0]})


def test_parts_join_in_sample_order(tmp_path):
    store = RunStore(tmp_path / "run", SETTINGS, 3, schema=SCHEMA)
    assert not (tmp_path / "run").exists(), "nothing is made before the first sample"
    for index in (2, 0, 1):
        store.write(index, rows(index))
    assert store.finish()[0]["sample"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert pq.read_table(tmp_path / "run" / "results.parquet")["sample"].to_pylist() == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip


def test_a_run_goes_on_where_it_stopped(tmp_path):
    RunStore(tmp_path / "run", SETTINGS, 2, schema=SCHEMA).write(1, rows(1))
    again = RunStore(tmp_path / "run", dict(reversed(SETTINGS.items())), 2, schema=SCHEMA)
    assert again.done == {1}
    with pytest.raises(FlowjaxError, match="sample 0 has no results"):
        again.finish()


def test_leftovers_of_a_killed_write_are_not_results(tmp_path):
    store = RunStore(tmp_path / "run", SETTINGS, 1, schema=SCHEMA)
    store.write(0, rows(0))
    (tmp_path / "run" / "parts" / ".000001.parquet.x1y2").write_bytes(b"PAR1 half")
    assert RunStore(tmp_path / "run", SETTINGS, 1, schema=SCHEMA).done == {0}


def test_every_differing_setting_is_named(tmp_path):
    RunStore(tmp_path / "run", SETTINGS, 1, schema=SCHEMA).write(0, rows(0))
    other = SETTINGS | {"window": 9, "style": "center"}
    with pytest.raises(FlowjaxError) as error:
        RunStore(tmp_path / "run", other, 1, schema=SCHEMA)
    assert "window is 3 there and 9 here" in str(error.value)
    assert 'style is null there and "center" here' in str(error.value)
    assert "model" not in str(error.value)


def test_overwriting_replaces_the_run_with_its_first_sample(tmp_path):
    RunStore(tmp_path / "run", SETTINGS, 1, schema=SCHEMA).write(0, rows(0))
    replaced = RunStore(
        tmp_path / "run", SETTINGS | {"window": 9}, 2, schema=SCHEMA, overwrite=True
    )
    assert pq.read_table(tmp_path / "run" / "parts" / "000000.parquet")["sample"].to_pylist()
    assert replaced.done == frozenset()
    replaced.write(1, rows(1))
    assert sorted(path.name for path in (tmp_path / "run" / "parts").iterdir()) == [
        "000001.parquet"
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["samples"] == 2


def test_a_full_disk_loses_nothing_that_was_finished(tmp_path, monkeypatch):
    store = RunStore(tmp_path / "run", SETTINGS, 2, schema=SCHEMA)
    store.write(0, rows(0))

    def full(table, path):
        path.write_bytes(b"PAR1 half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module.pq, "write_table", full)
        with pytest.raises(FlowjaxError, match="disk is full"):
            store.write(1, rows(1))
    assert [path.name for path in (tmp_path / "run" / "parts").iterdir()] == ["000000.parquet"]
    again = RunStore(tmp_path / "run", SETTINGS, 2, schema=SCHEMA)
    again.write(1, rows(1))
    assert again.finish()[0].num_rows == 4


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(FlowjaxError, match="already exists"):
        RunStore(tmp_path, SETTINGS, 1, schema=SCHEMA)
    with pytest.raises(FlowjaxError, match="not a flowjax run"):
        RunStore(tmp_path, SETTINGS, 1, schema=SCHEMA, overwrite=True)


def test_atomic_writes_leave_nothing_when_they_fail(tmp_path):
    (tmp_path / "file").write_text("old")

    def half(path):
        path.write_text("ne")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.atomically(tmp_path / "file", half)
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
