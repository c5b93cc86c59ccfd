"""`flowjax probability` through the command line, and its summary by hand."""

import math

import numpy as np
import pytest

from flowjax.report.statistics import Interval
from flowjax_experiments.probability import LayerProbability, emerges_at
from tests.experiments.checks import (
    assert_redrawn,
    assert_refused,
    line_of,
    rows_of,
    sample_on_page,
    settings_of,
)

LAYERS = 8


@pytest.fixture(scope="module")
def ran(flowjax, answering, benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("probability") / "run"
    result = flowjax(
        "probability", answering, "--data", benchmark, "--samples", "all", "--out", out
    )
    assert result.code == 0, result.err
    return out, result.out


def test_rows(ran):
    out, _ = ran
    rows = rows_of(out)
    assert len(rows) == 8 * 2 * LAYERS
    by_place = {(row["sample_id"], row["normed"], row["layer"]): row for row in rows}
    assert len(by_place) == len(rows)
    for (sample, normed, layer), row in by_place.items():
        true = row["letters"].index(row["true_answer"])
        options = row["probabilities"]
        assert row["letters"] == "ABCD" and len(options) == 4
        assert row["true_probability"] == options[true]
        assert row["false_probability"] == pytest.approx((sum(options) - options[true]) / 3)
        assert len(row["top_tokens"]) == len(row["top_ids"]) == 10
        assert row["top_probabilities"] == sorted(row["top_probabilities"], reverse=True)
        if layer == LAYERS - 1:
            assert row["top_tokens"][0] == row["base_answer"]
            assert row["correct"] == (row["base_answer"] == row["true_answer"])
            assert row["probabilities"] == by_place[sample, not normed, layer]["probabilities"]
    first = [by_place["colour/0", normed, 0]["probabilities"] for normed in (True, False)]
    assert np.abs(np.subtract(*first)).max() > 1e-3  # the norm matters before the last layer
    assert settings_of(out)["analysis"] == "probability"


def test_summary_and_figures_need_no_model(flowjax, ran):
    out, printed = ran
    assert "n = 8" in printed and "random weights" in printed
    rows = [row for row in rows_of(out) if row["normed"] and row["layer"] == 2]
    gap = np.mean([row["true_probability"] - row["false_probability"] for row in rows])
    assert f"{gap:+.4f}" in line_of(printed, 3)
    assert_redrawn(flowjax, out, printed)


def test_the_chosen_samples_only(flowjax, answering, benchmark, ran, tmp_path):
    every = {row["sample_id"]: row["correct"] for row in rows_of(ran[0])}
    assert set(every.values()) == {True, False}
    out = tmp_path / "run"
    result = flowjax("probability", answering, "--data", benchmark, "--out", out, "--top-k", 3)
    assert result.code == 0, result.err
    rows = rows_of(out)
    assert {row["sample_id"] for row in rows} == {name for name, right in every.items() if right}
    assert {len(row["top_tokens"]) for row in rows} == {3}


@pytest.mark.parametrize("k", [0, 10**6])
def test_a_bad_number_of_tokens_is_refused(flowjax, answering, benchmark, k, tmp_path):
    asked = ["probability", answering, "--data", benchmark, "--out", tmp_path / "run"]
    assert_refused(flowjax(*asked, "--top-k", k), f"--top-k {k}")
    assert not (tmp_path / "run").exists()


def layer(number: int, low: float, high: float, n: int = 8) -> LayerProbability:
    gap = Interval(n, (low + high) / 2, low, high, 0.01 if n > 1 else math.nan)
    return LayerProbability(number, True, gap, gap, gap)


def test_the_true_option_leads_from_the_first_layer_of_the_last_unbroken_run():
    ahead, even, behind = (0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1)
    for ends, expected in (
        ([even, ahead, even, ahead, ahead], 4),
        ([ahead, ahead], 1),
        ([ahead, even], None),
        ([ahead, behind], None),
        ([behind, ahead], 2),
    ):
        layers = [layer(i + 1, *pair) for i, pair in enumerate(ends)]
        assert emerges_at(layers) == expected
    assert emerges_at([layer(1, 0.2, 0.2, n=1)]) is None  # too few to test


def test_options_on_a_page(flowjax, ran, tmp_path):
    out, _ = ran
    one = sample_on_page(flowjax, tmp_path, out)
    assert not one["frames"] and one["words"] is None
    assert one["options"]["letters"] == list("ABCD")
    wanted = [
        row["probabilities"]
        for row in rows_of(out)
        if row["sample_id"] == one["label"] and row["normed"]
    ]
    np.testing.assert_allclose(one["options"]["probability"], wanted, atol=1e-4)
