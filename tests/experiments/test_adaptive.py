"""`flowjax adaptive`: routes of every sample, and policies chosen on one half."""

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flowjax.asked.asked import ask_sample
from flowjax.data.benchmark import read_benchmark
from flowjax.edges import Edge, Knockout
from flowjax.inference.policy import LAYER, Policy
from flowjax.lens.read import read_logits
from flowjax.models.checkpoint import load_model
from flowjax.padding import pad_prompt, padded_mask
from flowjax_experiments.adaptive import (
    DELTA,
    FIXED,
    IN_THE_MEAN,
    SURE,
    THRESHOLDS,
    Adaptive,
    Outcomes,
    choose,
    places,
    sequences,
)
from tests.experiments.checks import assert_redrawn


@pytest.fixture(scope="module")
def run(flowjax, answering, benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("adaptive") / "run"
    command = ["adaptive", answering, "--data", benchmark, "--samples", "all", "--limit", 2]
    result = flowjax(*command, "--every", 2, "--out", out)
    assert result.code == 0, result.err
    return out, result.out


def test_rows_of_every_policy(run):
    table = pq.read_table(run[0] / "results.parquet")
    assert table.schema.equals(Adaptive.SCHEMA)
    policies = sequences(8, (2, 4, 6))
    assert table.num_rows == 4 * sum(map(len, policies.values()))
    rows = table.to_pylist()
    closed_some = set()
    for row in rows:
        if row["place"] == 0:
            assert row["closed"] == [0, 0, 0, 0] and not row["lost"]
            assert row["new_answer"] == row["base_answer"]
        assert row["flops"] <= 1.1 * row["full_flops"]
        assert row["closed"] == sorted(row["closed"])
        closed_some.add(tuple(row["closed"]))
    assert len(closed_some) > 4, "all samples take the same routes"
    fixed = [row for row in rows if row["sequence"] == FIXED]
    assert {tuple(row["closed"]) for row in fixed} == {
        (0, 0, 0, 0), (0, 0, 0, 2), (0, 0, 2, 2), (0, 2, 2, 2),
    }  # fmt: skip


def test_a_route_is_the_model_without_edges_out_of_the_video(run, answering, benchmark):
    table = pq.read_table(run[0] / "results.parquet")
    loaded = load_model(answering)
    sample = next(iter(read_benchmark(benchmark, limit=1)))
    asked = ask_sample(loaded, sample)
    edges = tuple(Edge("video", cell) for cell in asked.layout.cells if cell != "system")
    rows = table.filter(
        (pc.field("sample_id") == sample.sample_id) & (pc.field("sequence") == FIXED)
    ).to_pylist()
    for row, first in zip(rows[1:], (6, 4, 2), strict=True):
        cut = (Knockout(edges, range(first, 8)),)
        mask = padded_mask(asked.layout, cut, asked.decoder.config)
        logits = read_logits(asked.decoder, pad_prompt(asked.embedded), mask)
        assert row["new_id"] == int(logits.argmax())


def test_tables_and_figure_come_from_rows(run, flowjax):
    out, printed = run
    assert "Chosen to lose at most 5% of answers, in at least 95% of draws" in printed
    assert "Chosen to lose at most 2% of answers, in the mean over draws" in printed
    assert_redrawn(flowjax, out, printed)


def test_decisions_must_come_late_enough(flowjax, answering, benchmark, tmp_path):
    command = ["adaptive", answering, "--data", benchmark, "--out", tmp_path / "run"]
    result = flowjax(*command, "--every", 8)
    assert result.code == 2
    assert "--every 8: no decision in the later half of 8 layers" in result.err


def test_sequences_begin_with_nothing_closed():
    found = sequences(32, tuple(range(4, 32, 4)))
    assert all(own[0].threshold < 0 for own in found.values())
    assert {own[1].first for own in found.values()} == {8, 28}
    assert [policy.threshold for policy in found["entropy, video"]] == [*THRESHOLDS]
    assert found[FIXED][1] == Policy(LAYER, 0.0, 28, ("video",))


LOSS = np.array([0.0, 0.01, 0.03, 0.08, 0.3])


def outcomes(rng, samples):
    """A sequence whose policies lose what `LOSS` says, and cost less and less."""
    lost = rng.uniform(size=(samples, 1)) < LOSS
    flops = np.broadcast_to(np.linspace(1, 0.2, len(LOSS)), lost.shape)
    return Outcomes(tuple(map(str, range(samples))), ~lost, lost, flops, flops)


def test_what_is_chosen_holds_though_the_cheapest_is_taken():
    names, draws = [str(index) for index in range(5)], 500
    above, mean = 0, []
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        found = {name: outcomes(rng, 400) for name in names}
        above += max(LOSS[place] for place in places(found, 0.05, by=SURE).values()) > 0.05
        mean.append(LOSS[places(found, 0.05, by=IN_THE_MEAN)["0"]])
    assert above / draws <= DELTA
    assert 0.02 < np.mean(mean) <= 0.05


def test_a_choice_is_judged_on_the_other_samples():
    rng = np.random.default_rng(0)
    found, other = ({name: outcomes(rng, 400) for name in ("one", "two")} for _ in range(2))
    choice = choose(found, other, 0.05, by=SURE)
    assert any(at.cheapest for at in choice.of)
    for at in choice.of:
        own = other[at.sequence]
        assert at.lost.mean == own.lost[:, at.place].mean()
        assert at.accuracy.mean == own.right[:, at.place].mean()
        assert at.change.mean == pytest.approx(-at.lost.mean)
        assert at.flops == own.flops[0, at.place] < 1
