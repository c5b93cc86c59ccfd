"""What cheaper prefills still answer, on a benchmark."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from flowjax.asked.asked import ask_sample
from flowjax.data.benchmark import read_benchmark
from flowjax.efficiency.asked import prompt_of
from flowjax.efficiency.choose import clues_of, in_place
from flowjax.efficiency.methods.prumerge import PruMerge
from flowjax.models.checkpoint import load_model
from flowjax_experiments.efficiency import Efficiency
from tests.experiments.checks import assert_redrawn, assert_refused, rows_of

METHODS = ("--method", "strict", "--method", "random_edges", "--method", "random_tokens")


@pytest.fixture(scope="module")
def run(flowjax, answering, benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("efficiency") / "run"
    result = flowjax(
        "efficiency", answering, "--data", benchmark, "--limit", 3, "--timed", 1, "--rounds", 1,
        *METHODS, "--out", out,
    )  # fmt: skip
    assert result.code == 0, result.err
    return out, result.out


@pytest.fixture(scope="module")
def asked(answering, benchmark):
    """The sample that is timed."""
    return ask_sample(load_model(answering), next(iter(read_benchmark(benchmark, limit=1))))


def test_every_setting_of_every_sample(run, asked):
    rows = rows_of(run[0])
    assert pq.read_table(run[0] / "results.parquet").schema.equals(Efficiency.SCHEMA)
    methods = [row["method"] for row in rows[: len(rows) // 6]]
    assert methods == ["full", "random_edges", "random_edges", *["random_tokens"] * 5, "strict"]
    assert len(rows) == 6 * len(methods)
    full = [row for row in rows if row["method"] == "full"]
    for row in full:
        assert row["new_answer"] == row["base_answer"] and row["flops"] == row["full_flops"]
    for row in rows:
        assert row["flops"] <= row["full_flops"] and row["cache_bytes"] <= row["full_cache_bytes"]
    timed = [row for row in rows if not np.isnan(row["seconds"])]
    assert {row["sample_id"] for row in timed} == {rows[0]["sample_id"]}
    assert len(timed) == len(methods)
    # Of this model's attention and head, which are four times as sharp as random ones: relative.
    bound = 1e-5 * np.abs(asked.logits).max()
    assert all(row["difference"] < bound and row["seconds"] > 0 for row in timed)


def test_tables_and_figure_come_from_rows(run, flowjax):
    out, printed = run
    assert "At 50% of the FLOPs of a prefill" in printed
    assert "At 30% of the FLOPs of a prefill" in printed
    assert_redrawn(flowjax, out, printed)


def test_a_real_tower_is_read(asked):
    prompt = prompt_of(asked)
    assert prompt.seen.attention.shape == prompt.grid.shape
    shares = prompt.seen.attention.sum(axis=1)
    assert ((shares > 0.5) & (shares < 1)).all()
    chooser = PruMerge(0.5)
    count = chooser.kept(np.bincount(prompt.frame), prompt.grid.shape)
    clues = clues_of(prompt, look=True)
    _, stays = in_place(prompt.embedded, clues, chooser=chooser, count=count)
    assert stays.sum() == prompt.layout.length - len(prompt.video) + count


def test_bad_options(flowjax, answering, benchmark, swept, tmp_path):
    begin = "efficiency", answering, "--data", benchmark, "--out", tmp_path / "run"
    assert_refused(flowjax(*begin, "--method", "magic"), "--method 'magic'", "fastv")
    assert_refused(flowjax(*begin, "--method", "found"), "--method found", "nothing to work on")
    assert_refused(flowjax(*begin, "--found", swept), "--found", "not a run of `flowjax pathways")
