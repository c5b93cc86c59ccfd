import errno
import json
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowjax import files
from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.runs import tables
from flowjax.runs.store import RunStore

SCHEMA = pa.schema([("sample", pa.int64()), ("value", pa.float64())])
SETTINGS = {"model": "m", "window": 3, "edges": ["a", "b"]}


def rows(sample):
    return pa.table({"sample": [sample] * 2, "value": [1.0, 2.0]})


def opened(path, settings=SETTINGS, samples=1, **options):
    return closing(RunStore(path, settings, samples, schema=SCHEMA, **options))


def one_sample(path, settings=SETTINGS, samples=1, index=0):
    with opened(path, settings, samples) as store:
        store.write(index, rows(index), f"source {index}")


def test_parts_join_in_sample_order(tmp_path):
    with opened(tmp_path / "run", samples=3) as store:
        assert not (tmp_path / "run").exists(), "nothing is made before the first sample"
        for index in (2, 0, 1):
            store.write(index, rows(index), "")
        assert store.finish()[0]["sample"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert pq.read_table(tmp_path / "run" / "results.parquet")["sample"].to_pylist() == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip


def test_a_run_goes_on_where_it_stopped(tmp_path):
    one_sample(tmp_path / "run", samples=2, index=1)
    with opened(tmp_path / "run", dict(reversed(SETTINGS.items())), 2) as again:
        assert again.finished == {1: "source 1"}
        with pytest.raises(FlowjaxError, match="sample 0 has no results"):
            again.finish()


def test_leftovers_and_damaged_parts_are_not_results(tmp_path):
    one_sample(tmp_path / "run", samples=3)
    parts = tmp_path / "run" / "parts"
    (parts / ".000001.parquet.x1y2").write_bytes(b"PAR1 half")
    (parts / "000002.parquet").write_bytes(b"PAR1 half")
    with opened(tmp_path / "run", samples=3) as store:
        assert set(store.finished) == {0}


def test_a_sample_that_fails_has_no_rows_whatever_it_had_before(tmp_path):
    one_sample(tmp_path / "run")
    sample = Sample("s", "t", Path("caf\udce9.mp4"), Question("What?", ()))
    with opened(tmp_path / "run") as store:
        store.fail(0, sample, "caf\udce9.mp4 does not exist")
        found, failures = store.finish()
    assert not found.num_rows
    assert failures.to_pylist() == [
        {
            "sample_id": "s",
            "task": "t",
            "video": "caf\\xe9.mp4",
            "error": "caf\\udce9.mp4 does not exist",
        }
    ]


def test_every_differing_setting_is_named(tmp_path):
    one_sample(tmp_path / "run")
    other = SETTINGS | {"window": 9, "style": "center"}
    with pytest.raises(FlowjaxError) as error:
        RunStore(tmp_path / "run", other, 1, schema=SCHEMA)
    assert "window is 3 there and 9 here" in str(error.value)
    assert 'style is null there and "center" here' in str(error.value)
    assert "model" not in str(error.value)


def test_overwriting_replaces_the_run_with_its_first_sample(tmp_path):
    one_sample(tmp_path / "run")
    (tmp_path / "run" / "figures").mkdir()
    with opened(tmp_path / "run", SETTINGS | {"window": 9}, 2, overwrite=True) as replaced:
        assert (tmp_path / "run" / "parts" / "000000.parquet").exists()
        assert not replaced.finished
        replaced.write(1, rows(1), "")
    run = tmp_path / "run"
    assert {str(path.relative_to(run)) for path in run.rglob("*")} == {
        ".lock", "manifest.json", "parts", "parts/000001.parquet",
    }  # fmt: skip
    assert json.loads((run / "manifest.json").read_text())["samples"] == 2


def test_only_another_run_is_replaced(tmp_path):
    one_sample(tmp_path / "run")
    with opened(tmp_path / "run", overwrite="other") as same:
        assert set(same.finished) == {0}
    with opened(tmp_path / "run", SETTINGS | {"window": 9}, overwrite="other") as another:
        assert not another.finished


def full(table, file):
    file.write(b"PAR1 half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_loses_nothing_that_was_finished(tmp_path, monkeypatch):
    with opened(tmp_path / "run", samples=2) as store:
        store.write(0, rows(0), "")
        with monkeypatch.context() as patch:
            patch.setattr(tables.pq, "write_table", full)
            with pytest.raises(FlowjaxError, match="the disk is full; with room on it, the same"):
                store.write(1, rows(1), "")
    assert [path.name for path in (tmp_path / "run" / "parts").iterdir()] == ["000000.parquet"]
    with opened(tmp_path / "run", samples=2) as again:
        again.write(1, rows(1), "")
        assert again.finish()[0].num_rows == 4


def test_a_finished_run_needs_no_disk(tmp_path, monkeypatch):
    with opened(tmp_path / "run") as store:
        store.write(0, rows(0), "")
        store.finish()
    monkeypatch.setattr(tables.pq, "write_table", full)
    with opened(tmp_path / "run") as again:
        assert again.finish()[0].num_rows == 2


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(FlowjaxError, match="already exists"):
        RunStore(tmp_path, SETTINGS, 1, schema=SCHEMA)
    with pytest.raises(FlowjaxError, match="not a flowjax run"):
        RunStore(tmp_path, SETTINGS, 1, schema=SCHEMA, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_atomic_writes_leave_nothing_when_they_fail(tmp_path):
    (tmp_path / "file").write_text("old")

    def half(path):
        path.write_text("ne")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.atomically(tmp_path / "file", half)
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
