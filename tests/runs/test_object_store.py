"""Models and runs at `gs://`: nothing is renamed, nothing half-written is ever seen."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.paths import as_path, is_remote
from flowjax.runs.store import RunStore
from flowjax.runs.tables import read_table
from tests.cli.conftest import flowjax
from tests.experiments.answering import write_answering_model, write_benchmark
from tests.runs.object_store import object_store, put, served

__all__ = ["flowjax"]

SCHEMA = pa.schema([("x", pa.int32())])
RUN = "gs://bucket/run"


@pytest.fixture
def store():
    with object_store() as found:
        yield found


def opened(settings=1, samples=3, **options):
    return RunStore(as_path(RUN), {"a": settings}, samples, schema=SCHEMA, **options)


def rows(*values):
    return pa.table({"x": values}, schema=SCHEMA)


def test_a_local_path_stays_one():
    assert as_path("a//b") == Path("a//b") and not is_remote(as_path("a"))


def test_other_stores_are_refused():
    with pytest.raises(FlowjaxError, match="s3://b/x: give a path on this machine or gs://"):
        as_path("s3://b/x")


@pytest.mark.parametrize("cut_off", range(1, 7))
def test_every_upload_is_cut_off_once(store, cut_off):
    """Whatever is there is whole; the same run goes on and writes no finished sample again."""
    store.fails = cut_off

    def run():
        run = opened()
        for index in set(range(3)) - set(run.finished):
            if index == 2:
                run.fail(index, Sample("s", "t", Path("v.mp4"), Question("q", ())), "no frames")
            else:
                run.write(index, rows(index, index), f"made of {index}")
        return run.finish()

    with pytest.raises(FlowjaxError, match=f"{RUN} cannot be written: the upload of .* was cut"):
        run()
    for name in store.objects:
        if name.endswith(".parquet"):
            read_table(as_path(f"gs://{name}"))
    done = {name for name in store.objects if "/parts/" in name}
    before = len(store.uploads)
    table, failures = run()
    assert table["x"].to_pylist() == [0, 0, 1, 1] and failures["sample_id"].to_pylist() == ["s"]
    assert not done & set(store.uploads[before:])
    run()
    assert {name for name in store.objects if not name.startswith("bucket/run/")} == set()


def test_another_run_there_is_refused_and_replaced(store):
    opened().write(0, rows(0), "")
    with pytest.raises(FlowjaxError, match="other settings"):
        opened(settings=2)
    replacing = opened(settings=2, samples=1, overwrite=True)
    replacing.write(0, rows(9), "")
    assert replacing.finish()[0]["x"].to_pylist() == [9]
    assert {name for name in store.objects if "/parts/" in name} == {
        "bucket/run/parts/000000.parquet"
    }


def test_a_run_that_was_replaced_writes_no_more(store):
    first = opened()
    first.write(0, rows(0), "")
    opened(settings=2, overwrite=True).write(0, rows(2), "")
    with pytest.raises(FlowjaxError, match="was replaced while this run was written"):
        first.write(1, rows(1), "")


def test_a_model_and_a_run_in_a_store(store, flowjax, monkeypatch, tmp_path):
    """The arrays are read by tensorstore from the same objects, over HTTP."""
    model = write_answering_model(tmp_path / "answering")
    data = write_benchmark(tmp_path / "bench", per_task=1)
    put(model, "bucket/model")
    with served() as address:
        monkeypatch.setitem(os.environ, "TENSORSTORE_GCS_HTTP_URL", address)
        monkeypatch.setitem(os.environ, "GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
        asked = ("--data", data, "--out")
        done = flowjax("evaluate", "gs://bucket/model", *asked, RUN)
    assert done.code == 0, done.err
    local = flowjax("evaluate", model, *asked, tmp_path / "run")
    assert local.code == 0, local.err
    ours = read_table(as_path(RUN) / "results.parquet")
    theirs = pq.read_table(tmp_path / "run" / "results.parquet")
    assert ours.drop_columns(["f1"]).equals(theirs.drop_columns(["f1"]))  # not a number
    again = flowjax("figures", RUN)
    assert again.code == 0 and "Accuracy" in again.out, again.err
