"""The rows of one process, whatever the number of processes and devices."""

import json
import signal
import socket
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hosts.child_runs import analyses
from tests.hosts.pod import finish, start, start_all

SWEEP = ("--samples", "all", "--window", 3, "--edges", "cross-frame", "--edges", "vql-to-ql")


PERCENT = {"relative_change": "base_probability", "relative_change_true": "base_probability_true"}
"""Columns in percent of others, which may be as small as they like."""


def rows_are_equal(one, other):
    """Two runs' rows: texts and ids exactly, numbers to 1e-5, and so differences of two of them."""
    ours, theirs = (pq.read_table(run / "results.parquet") for run in (one, other))
    assert ours.schema == theirs.schema and ours.num_rows == theirs.num_rows > 0
    for name in ours.column_names:
        mine, others = ours[name].combine_chunks(), theirs[name].combine_chunks()
        if pa.types.is_list(mine.type):
            mine, others = mine.flatten(), others.flatten()
        if pa.types.is_floating(mine.type):
            values = [mine.to_numpy(), others.to_numpy()]
            if name in PERCENT:
                bases = (run[PERCENT[name]].to_numpy() for run in (ours, theirs))
                values = [value * base / 100 for value, base in zip(values, bases, strict=True)]
            np.testing.assert_allclose(*values, rtol=0, atol=1e-5, err_msg=name)
        else:
            assert mine.equals(others), name


def parts(run):
    return {part.name for part in (run / "parts").glob("*.parquet")}


@pytest.mark.parametrize(
    "processes, devices, mesh, names",
    [
        (2, 1, "data=2,model=1", "evaluate"),
        pytest.param(1, 8, "data=1,model=8", "sweep,lens", marks=pytest.mark.slow),
        pytest.param(2, 2, "data=2,model=2", "", marks=pytest.mark.slow),
        pytest.param(2, 2, "data=4,model=1", "", marks=pytest.mark.slow),
        pytest.param(2, 2, "data=1,model=4", "", marks=pytest.mark.slow),
        pytest.param(4, 2, "data=2,model=4", "", marks=pytest.mark.slow),
        pytest.param(4, 2, "data=4,model=2", "", marks=pytest.mark.slow),
    ],
)
def test_rows_are_those_of_one_process(inputs, alone, tmp_path, processes, devices, mesh, names):
    """With 2 heads of keys, which are whole on every device where a copy has 4 or 8."""
    started = start_all(processes, *inputs, tmp_path, mesh, names, devices=devices)
    for ended in finish(started, timeout=500):
        assert ended.code == 0, ended.err
    for name in filter(None, names.split(",")) if names else analyses(tmp_path):
        rows_are_equal(tmp_path / name, alone(name))
    for name in {"sweep"}.intersection(path.name for path in tmp_path.iterdir()):
        [made] = json.loads((tmp_path / name / "made.json").read_text())
        [expected] = json.loads((alone(name) / "made.json").read_text())
        assert (made["samples"], made["flops"]) == (expected["samples"], expected["flops"])


@pytest.mark.slow
def test_a_host_that_is_killed_ends_the_run_and_another_number_goes_on(inputs, alone, tmp_path):
    """The others end within 60 s and name it; what is finished stays."""
    model, data = inputs
    out = tmp_path / "sweep"
    command = ("sweep", model, "--data", data, *SWEEP, "--out", out)
    started = start(4, *command)
    while len(parts(out)) < 2:
        assert all(one.poll() is None for one in started), finish(started)
        time.sleep(0.1)
    started[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    ended = finish(started, timeout=100)
    assert time.monotonic() - began < 60
    for process, one in enumerate(ended):
        if process != 1:
            assert one.code == 2, one.err
            last = one.err.strip().splitlines()[-1]
            said = f"process 1 on {socket.gethostname()} ended or stopped answering"
            assert last.startswith(f"flowjax: {said}"), one.err
    survived = {name: (out / "parts" / name).stat().st_mtime_ns for name in parts(out)}
    assert 2 <= len(survived) < 8
    for one in finish(start(2, *command)):
        assert one.code == 0, one.err
    rows_are_equal(out, alone("sweep"))
    assert all((out / "parts" / name).stat().st_mtime_ns == at for name, at in survived.items())


@pytest.mark.slow
def test_an_error_on_one_host_ends_the_run_with_its_reason(inputs, tmp_path):
    """Only process 1 reads the second sample, whose video is damaged."""
    model, data = inputs
    videos = tmp_path / "videos"
    videos.mkdir()
    source = sorted((data / "video" / "colour").glob("*.mp4"))[0]
    lines = []
    for index in range(2):
        (videos / f"{index}.mp4").write_bytes(b"" if index == 1 else source.read_bytes())
        entry = {"video": f"videos/{index}.mp4", "question": "Which?", "options": ["up", "down"]}
        lines.append(json.dumps(entry | {"answer": "A"}))
    (tmp_path / "questions.jsonl").write_text("\n".join(lines) + "\n")
    out = tmp_path / "run"
    asked = ("--data", tmp_path / "questions.jsonl", "--strict", "--out", out)
    first, second = finish(start(2, "evaluate", model, *asked))
    assert (first.code, second.code) == (2, 2)
    assert second.err.strip().splitlines()[-1].startswith("flowjax: ")
    assert "1.mp4" in second.err
    said = first.err.strip().splitlines()[-1]
    assert said.startswith(f"flowjax: process 1 on {socket.gethostname()} failed: ")
    assert "1.mp4" in said and "the same command goes on" in said
