"""`flowjax prepare`: analyses of what it made give the rows that the benchmark itself gives."""

import json

import pyarrow.parquet as pq
import pytest


@pytest.fixture(scope="module")
def prepared(flowjax, benchmark, tmp_path_factory):
    """The benchmark with a video that is missing, prepared."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    result = flowjax("prepare", benchmark, out, "--frames", 8, "--workers", 1)
    assert result.code == 0, result.err
    assert "8 clips" in result.out and "direction" in result.out
    return out


@pytest.mark.parametrize("command", [["evaluate"], ["sweep", "--window", 3, "--limit", 2]])
def test_rows_are_the_same(flowjax, answering, benchmark, prepared, tmp_path, command):
    for name, data in (("raw", benchmark), ("stored", prepared)):
        result = flowjax(
            command[0], answering, *command[1:], "--data", data, "--out", tmp_path / name
        )
        assert result.code == 0, result.err
    raw, stored = (pq.read_table(tmp_path / n / "results.parquet") for n in ("raw", "stored"))
    assert raw.num_rows and repr(raw.to_pylist()) == repr(stored.to_pylist())
    settings = [
        json.loads((tmp_path / n / "manifest.json").read_text())["settings"]
        for n in ("raw", "stored")
    ]
    assert settings[0] == settings[1]
    # A run goes on with either.
    again = flowjax(
        command[0], answering, *command[1:], "--data", prepared, "--out", tmp_path / "raw"
    )
    assert again.code == 0, again.err


def test_other_frames_are_refused_before_anything_runs(flowjax, answering, prepared, tmp_path):
    result = flowjax(
        "evaluate", answering, "--data", prepared, "--frames", 4, "--out", tmp_path / "run"
    )
    assert result.code == 2 and "was prepared with 8 frames of every video" in result.err
    assert not (tmp_path / "run").exists()


def test_bad_arguments(flowjax, benchmark, prepared, tmp_path):
    for options, words in (
        (["--frames", 0], "frames 0: give at least 1"),
        (["--frames", 8, "--task", "none"], "task 'none' does not exist"),
        ([], "give --frames, or --model"),
        (["--fps", 2], "--fps 2: which frames they are is the rule of a model's family; give"),
        (["--fps", 2, "--frames", 8], "frames 8 and fps 2: give a number of frames or a rate"),
    ):
        result = flowjax("prepare", benchmark, tmp_path / "out", *options)
        assert result.code == 2 and words in result.err
    assert not (tmp_path / "out").exists()
    again = flowjax("prepare", prepared, tmp_path / "out", "--frames", 8)
    assert again.code == 2 and "is prepared already" in again.err


def test_accuracy_counts_the_samples_without_rows(flowjax, answering, benchmark, tmp_path):
    command = ["sweep", answering, "--data", benchmark, "--window", 3, "--edges", "cross-frame"]
    result = flowjax(*command, "--out", tmp_path / "run")
    evaluated = flowjax("evaluate", answering, "--data", benchmark, "--out", tmp_path / "asked")
    assert result.code == evaluated.code == 0, result.err + evaluated.err
    assert "The model's own answers" in result.out
    table = pq.read_table(tmp_path / "run" / "accuracy.parquet").to_pylist()
    asked = pq.read_table(tmp_path / "asked" / "results.parquet").to_pylist()
    assert [(one["sample_id"], one["correct"]) for one in table] == [
        (one["sample_id"], one["correct"]) for one in asked
    ]
    rows = pq.read_table(tmp_path / "run" / "results.parquet")
    right = {one["sample_id"] for one in table if one["correct"]}
    assert 0 < len(right) < len(table) and set(rows["sample_id"].to_pylist()) == right
