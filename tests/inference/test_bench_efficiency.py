"""What cheaper prefills take, measured at a shape that takes seconds."""

import json

import pytest

from flowjax.errors import FlowjaxError
from flowjax_benchmarks import efficiency, prefill, routes
from flowjax_benchmarks.sweep import decoder_config

TINY = prefill.Shape(decoder_config(4, 32, 2, 48), "float32", (4,), tokens_per_frame=16)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(prefill.SHAPES, "tiny", TINY)


@pytest.mark.slow
def test_every_method(tmp_path):
    path = tmp_path / "efficiency.json"
    efficiency.run("tiny", json=path, frames=4, rounds=1)
    result = json.loads(path.read_text())
    assert result["programs_compiled_in_rounds"] == 0
    rows = result["contenders"]
    assert {"full", "strict", "fastv", "prumerge", "exit", "one_layer"} <= {
        row["method"] for row in rows
    }
    for row in rows:
        assert row["largest_difference_of_logits"] < 1e-5 and row["programs"] >= 0
        assert 0 < row["flops"] <= 1 and 0 < row["kv_cache"] <= 1 and row["time"] > 0
    counted = result["counted_at_7b"]
    assert {row["positions"] for row in counted} == {1272, 16392}
    assert {row["method"] for row in counted} == {row["method"] for row in rows}


@pytest.mark.slow
def test_every_route(tmp_path):
    path = tmp_path / "routes.json"
    routes.run("tiny", json=path, frames=4, rounds=1)
    result = json.loads(path.read_text())
    plain, *rows = result["routes"]
    assert plain["flops"] == plain["time"] == 1
    gap = [row["flops"] for row in rows[3:]]
    assert gap[0] == 1 and gap == sorted(gap, reverse=True)
    assert gap[-1] < 0.8  # text is two thirds of the prompt
    # Four segments of all edges, and three without video, by the one doubt; and the rows between.
    assert result["programs_of_all_routes"] >= 7
    assert result["programs_of_a_second_prompt"] == 0


def test_an_unknown_shape():
    for bench in (efficiency, routes):
        with pytest.raises(FlowjaxError, match="--shape '70b': choose one of small, 7b, tiny"):
            bench.run("70b", json=None)
