"""Models and runs at `gs://`: nothing is renamed, nothing half-written is ever seen."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.paths import as_path, is_remote
from flowjax.runs.store import RunStore
from flowjax.runs.tables import read_table
from flowjax.uploads import MARK
from flowjax_convert.export import export
from flowjax_convert.run import convert
from tests.cli.conftest import flowjax
from tests.convert.checkpoints import tensors_of
from tests.experiments.answering import write_answering_model, write_benchmark
from tests.runs.object_store import object_store, put, served

__all__ = ["flowjax"]

SCHEMA = pa.schema([("x", pa.int32())])
RUN, PREPARED = "gs://bucket/run", "gs://bucket/prepared"
ORACLE = Path(__file__).parents[1] / "oracle" / "data" / "pllava"


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
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = write_answering_model(tmp_path / "answering")
    data = write_benchmark(tmp_path / "bench", per_task=1)
    put(model, "bucket/model")
    with served():
        made = flowjax("prepare", data, PREPARED, "--model", "gs://bucket/model", "--workers", 1)
        assert made.code == 0, made.err
        done = flowjax("evaluate", "gs://bucket/model", "--data", PREPARED, "--out", RUN)
    assert done.code == 0, done.err
    local = flowjax("evaluate", model, "--data", data, "--out", tmp_path / "run")
    assert local.code == 0, local.err
    ours = read_table(as_path(RUN) / "results.parquet")
    theirs = pq.read_table(tmp_path / "run" / "results.parquet")
    for name in set(ours.column_names) - {"f1"}:  # not a number
        assert ours[name].equals(theirs[name]), name
    sent = len(store.uploads)
    assert flowjax("prepare", data, PREPARED, "--model", model).code == 0
    assert set(store.uploads[sent:]) <= {"bucket/prepared/prepared.json"}
    raw = flowjax("evaluate", model, "--data", "gs://bucket/model")
    assert raw.code == 2 and "has no prepared.json: videos are decoded from files" in raw.err
    page = flowjax("report", RUN, "--out", tmp_path / "report.html")
    assert page.code == 0 and (tmp_path / "report.html").exists(), page.err
    again = flowjax("figures", RUN)
    assert again.code == 0 and "Accuracy" in again.out, again.err


MODEL = "gs://bucket/models/tiny"


def test_a_model_is_converted_into_a_store_and_exported_from_it(store, tmp_path):
    """Whole when `flowjax.json` is there, which comes last; an upload that was cut off is free."""
    store.fails = 9
    with pytest.raises(FlowjaxError, match=f"{MODEL} cannot be written: the upload of .* was cut"):
        convert(ORACLE, MODEL)
    assert "bucket/models/tiny/flowjax.json" not in store.objects
    with pytest.raises(FlowjaxError, match=r"flowjax\.json"):
        load_model(as_path(MODEL), parameters=False)
    with served():
        convert(ORACLE, MODEL)
        assert store.uploads[-1] == "bucket/models/tiny/flowjax.json"
        export(as_path(MODEL), as_path("gs://bucket/out"), like=ORACLE)
    (tmp_path / "written").write_bytes(store.objects["bucket/out/model.safetensors"])
    assert tensors_of(tmp_path / "written") == tensors_of(ORACLE / "model.safetensors")
    with pytest.raises(FlowjaxError, match="already exists; give --overwrite"):
        convert(ORACLE, MODEL)
    before = set(store.objects)
    convert(ORACLE, MODEL, overwrite=True, dtype="bfloat16")
    assert set(store.objects) == before
    assert not [name for name in store.objects if name.endswith(MARK)]
