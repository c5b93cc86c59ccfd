"""Two commands that write into one folder: the later one is refused when it comes to write."""

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.runs.store import RunStore

SAMPLE = Sample("s", "t", Path("v.mp4"), Question("What?", ()))
SCHEMA = pa.schema([("model", pa.string())])
HOLDER = """
import sys, time
from pathlib import Path
from flowjax.files import lock
assert lock(Path(sys.argv[1])) is not None
print("held", flush=True)
time.sleep(60)
"""


def store(path, model, **options):
    return closing(RunStore(path, {"model": model}, 1, schema=SCHEMA, **options))


def rows(model):
    return pa.table({"model": [model]}, SCHEMA)


@pytest.mark.parametrize("second", ["two", "one"])
def test_of_two_runs_begun_before_either_stored_anything_one_writes(tmp_path, second):
    with store(tmp_path, "one") as first, store(tmp_path, second) as later:
        first.write(0, rows("one"), "")
        with pytest.raises(FlowjaxError, match="another process is writing this run"):
            later.write(0, rows(second), "")
        assert first.finish()[0]["model"].to_pylist() == ["one"]


def test_a_run_that_ended_meanwhile_is_not_added_to(tmp_path):
    with store(tmp_path, "two") as later:
        with store(tmp_path, "one") as first:
            first.write(0, rows("one"), "")
            first.finish()
        with pytest.raises(FlowjaxError, match='model is "one" there and "two" here'):
            later.write(0, rows("two"), "")
        with pytest.raises(FlowjaxError, match='model is "one" there and "two" here'):
            later.fail(0, SAMPLE, "")
    with store(tmp_path, "one") as again:
        assert again.finish()[0]["model"].to_pylist() == ["one"]


def test_a_run_that_is_being_written_is_refused_at_once_also_with_overwrite(tmp_path):
    with store(tmp_path, "one") as first:
        first.write(0, rows("one"), "")
        for options in ({}, {"overwrite": True}):
            with pytest.raises(FlowjaxError, match="another process is writing this run"):
                RunStore(tmp_path, {"model": "one"}, 1, schema=SCHEMA, **options)
        assert first.finish()[0].num_rows == 1


def test_a_folder_that_was_removed_and_made_anew_is_another_runs(tmp_path):
    run = tmp_path / "run"
    with store(run, "one") as first:
        first.write(0, rows("one"), "")
        shutil.rmtree(run)
        with pytest.raises(FlowjaxError, match="run cannot be written: No such file"):
            first.write(0, rows("one"), "")
        with store(run, "two") as second:
            second.write(0, rows("two"), "")
            with pytest.raises(FlowjaxError, match="was replaced while this run was written"):
                first.write(0, rows("one"), "")
            assert second.finish()[0]["model"].to_pylist() == ["two"]


def test_the_lock_of_a_killed_run_does_not_block(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with store(tmp_path, "one") as blocked, pytest.raises(FlowjaxError, match="another"):
            blocked.write(0, rows("one"), "")
        holder.kill()
    with store(tmp_path, "one") as free:
        free.write(0, rows("one"), "")
        assert free.finish()[0].num_rows == 1
