"""`flowjax figures` on any run, by what its manifest says."""

import json

import pytest

from tests.experiments.checks import assert_refused


@pytest.mark.parametrize("name", ["selection", "nothing", "os", "../convert", 3, None, ["lens"]])
def test_an_experiment_that_is_none_is_refused(flowjax, tmp_path, name):
    """A manifest names a module of ours that reports, or nothing is imported."""
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": {"experiment": name}}))
    assert_refused(flowjax("figures", tmp_path), "manifest.json", "experiment")


@pytest.mark.parametrize("text", ["{}", '{"settings": []}', "[]", "no json", None])
def test_a_folder_that_is_no_run_is_refused(flowjax, tmp_path, text):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    assert_refused(flowjax("figures", tmp_path), "manifest.json")


def test_an_unfinished_run_is_refused(flowjax, tmp_path):
    for settings in ({}, {"experiment": "lens"}, {"experiment": "pathways"}):
        (tmp_path / "manifest.json").write_text(json.dumps({"settings": settings}))
        assert_refused(flowjax("figures", tmp_path), "results.parquet")
