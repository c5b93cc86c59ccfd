"""`--exit` of `flowjax generate` and `flowjax evaluate`, from a rule in text and from a run."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from flowjax.errors import FlowjaxError
from flowjax.lens.early_exit import calibrate, exits
from flowjax.models.checkpoint import load_model
from flowjax.runs.finished import read_run
from flowjax.runs.halves import halves
from flowjax_experiments.exit import Readings
from flowjax_experiments.exit_choice import read_exit


@pytest.fixture(scope="module")
def read_by_layer(flowjax, answering, benchmark, tmp_path_factory):
    """A run of `flowjax exit`."""
    out = tmp_path_factory.mktemp("exit") / "run"
    result = flowjax("exit", answering, "--data", benchmark, "--samples", "all", "--out", out)
    assert result.code == 0, result.err
    return out


def test_evaluation_leaves_where_the_run_says(
    flowjax, answering, benchmark, read_by_layer, tmp_path
):
    readings = Readings.of(read_run(read_by_layer).rows)
    found_on = readings.among(halves(readings.samples)[0])
    for tolerance in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3):
        thresholds = calibrate(found_on.margin, found_on.agrees, tolerance)
        layers = exits(readings.margin, thresholds)
        if len(set(layers)) > 1:
            break
    assert len(set(layers)) > 1, "with every tolerance, all samples leave after the same layer"
    expected = dict(zip(readings.samples, layers, strict=True))
    command = ["evaluate", answering, "--data", benchmark, "--samples", "all"]
    command += ["--exit", f"{read_by_layer}@{tolerance}", "--out", tmp_path / "run"]
    result = flowjax(*command)
    assert result.code == 0, result.err
    assert "the first token was read after layer" in result.out
    rows = pq.read_table(tmp_path / "run" / "results.parquet").to_pylist()
    assert {row["sample_id"]: row["layer"] for row in rows} == expected
    options = dict(zip(readings.samples, readings.answer, strict=True))
    for row in rows:
        if row["answer"] in "ABCD":
            assert row["answer"] == "ABCD"[options[row["sample_id"]][row["layer"]]]
    settings = read_run(tmp_path / "run").settings
    written = [-1.0 if np.isinf(at) else pytest.approx(at, abs=1e-4) for at in thresholds[:-1]]
    assert settings["thresholds"] == {"measure": "option-gap", "of layers": [*written, -1.0]}


def test_generation_says_where_it_left(flowjax, answering, benchmark):
    clip = next((benchmark / "video").rglob("*.mp4"))
    command = ["generate", answering, clip, "Where?", "--max-new-tokens", 3]
    result = flowjax(*command, "--exit", "gap>0@layer>=2")
    assert result.code == 0, result.err
    assert "layers   the first token was read after 3 of 8, the others 3.0 on average" in result.out
    plain, never = flowjax(*command), flowjax(*command, "--exit", "entropy<0.0000001")
    assert plain.out.splitlines()[0] == never.out.splitlines()[0]
    assert "after 8 of 8, the others 8.0" in never.out
    options = flowjax(*command, "--option", "up", "--option", "down", "--exit", "option-gap>0")
    assert "the first token was read after 1 of 8" in options.out
    refused = flowjax(*command, "--exit", "option-gap>0")
    assert refused.code == 2 and "option-gap needs a question with options" in refused.err


def test_runs_that_are_no_rule(answering, read_by_layer, tmp_path):
    loaded = load_model(answering)
    with pytest.raises(FlowjaxError, match="'soon' is no tolerance; give 0 to 1"):
        read_exit(f"{read_by_layer}@soon", loaded)
    with pytest.raises(FlowjaxError, match="tolerance 3"):
        read_exit(f"{read_by_layer}@3", loaded)
    with pytest.raises(FlowjaxError, match="write entropy<NATS"):
        read_exit("runs/nowhere@0.1", loaded)
    for change, message in (
        ({"checkpoint": "another", "model": "A"}, "calibrated on another model, 'A'"),
        ({"analysis": "sweep"}, "is not a run of `flowjax exit`"),
    ):
        run = tmp_path / message[:2]
        shutil.copytree(read_by_layer, run)
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["settings"] |= change
        (run / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(FlowjaxError, match=message):
            read_exit(f"{run}@0.1", loaded)
