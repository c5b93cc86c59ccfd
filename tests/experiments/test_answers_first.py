"""All samples are answered, and their accuracy told and stored, before anything is cut."""

import pyarrow.parquet as pq
import pytest

from flowjax.runs import run as runner
from flowjax.sweeps import engine

EDGES = ["--window", 3, "--edges", "cross-frame"]
OTHERS = {
    "diagnose": ["diagnose", "--window", 3],
    "screen": ["screen", "--top", 2, "--no-heads"],
    "pathways": ["pathways", "evaluate", "--seeds", 0],
    "attention": ["attention", "--cut", "video->question"],
}
"""Analyses that cut, beside the sweep, with as little to do as may be."""


class Stopped(BaseException):
    """As a person who presses control-C, or a machine that is taken away."""


def sweep(model, benchmark, out):
    return ["sweep", model, "--data", benchmark, *EDGES, "--out", out]


@pytest.fixture
def calls(monkeypatch):
    """How often prompts were prefilled and windows run; windows stop the process if told so."""
    counted = {"prefills": 0, "stop after": None, "windows": 0}
    prefill, run_plan = engine.prefill, engine.run_plan

    def prefilled(*arguments):
        counted["prefills"] += 1
        return prefill(*arguments)

    def windows(*arguments):
        if counted["windows"] == counted["stop after"]:
            raise Stopped
        counted["windows"] += 1
        return run_plan(*arguments)

    monkeypatch.setattr(engine, "prefill", prefilled)
    monkeypatch.setattr(engine, "run_plan", windows)
    return counted


def test_a_sweep(flowjax, answering, benchmark, tmp_path, calls):
    """Stopped at its first knockout and at its second, and resumed."""
    whole = flowjax(*sweep(answering, benchmark, tmp_path / "whole"))
    assert whole.code == 0, whole.err
    table = pq.read_table(tmp_path / "whole" / "accuracy.parquet")
    count, right = table.num_rows, sum(table["correct"].to_pylist())
    assert count == 8 and 0 < right < count
    # Every sample once for its answer, and those that count once more.
    assert (calls["prefills"], calls["windows"]) == (count + right, right)
    assert not (tmp_path / "whole" / "answers").exists()

    run = tmp_path / "stopped"
    calls |= {"prefills": 0, "windows": 0, "stop after": 0}
    with pytest.raises(Stopped):
        flowjax(*sweep(answering, benchmark, run))
    assert calls["prefills"] == count + 1 and calls["windows"] == 0
    assert pq.read_table(run / "accuracy.parquet").equals(table)
    assert len(list((run / "parts").iterdir())) == count - right
    assert len(list((run / "answers").iterdir())) == right

    calls |= {"prefills": 0, "stop after": 1}
    with pytest.raises(Stopped):
        flowjax(*sweep(answering, benchmark, run))
    assert calls["prefills"] == 2 and len(list((run / "answers").iterdir())) == right - 1

    calls |= {"prefills": 0, "windows": 0, "stop after": None}
    resumed = flowjax(*sweep(answering, benchmark, run))
    assert resumed.code == 0, resumed.err
    assert (calls["prefills"], calls["windows"]) == (right - 1, right - 1)
    results = (pq.read_table(one / "results.parquet") for one in (run, tmp_path / "whole"))
    assert next(results).equals(next(results))
    assert resumed.out.count("The model's own answers") == 1
    again = flowjax("figures", run)
    assert again.code == 0 and "The model's own answers" in again.out


def test_answering_is_stopped_and_goes_on(flowjax, answering, benchmark, tmp_path, monkeypatch):
    prefill, calls = engine.prefill, []

    def prefilled(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise Stopped
        return prefill(*arguments)

    monkeypatch.setattr(engine, "prefill", prefilled)
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        flowjax(*sweep(answering, benchmark, run))
    assert not (run / "accuracy.parquet").exists()
    there = [*(run / "parts").glob("*"), *(run / "answers").glob("*")]
    assert len(there) == 3
    calls += [1] * 10
    before = len(calls)
    resumed = flowjax(*sweep(answering, benchmark, run))
    assert resumed.code == 0, resumed.err
    right = sum(pq.read_table(run / "accuracy.parquet")["correct"].to_pylist())
    assert len(calls) - before == 5 + right


@pytest.mark.parametrize("name", OTHERS)
def test_the_others(flowjax, answering, benchmark, tmp_path, monkeypatch, name):
    """All answers are stored before the first rows are made."""
    make_table, found = runner.make_table, list[list[bool]]()

    def rows(*arguments):
        stored = pq.read_table(tmp_path / "run" / "accuracy.parquet")
        found.append(stored["correct"].to_pylist())
        return make_table(*arguments)

    monkeypatch.setattr(runner, "make_table", rows)
    words = [*OTHERS[name], "--data", benchmark, "--limit", 1, "--samples", "all"]
    words.insert(2 if name == "pathways" else 1, answering)
    result = flowjax(*words, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    assert "The model's own answers" in result.out
    (asked,) = {len(one) for one in found}
    assert len(found) >= asked == 2


def test_one_question_is_asked_once(flowjax, answering, benchmark, tmp_path, calls):
    clip = benchmark / "video" / "direction" / "0.mp4"
    question = ["--question", "Where does the square go?", "--option", "up", "--option", "down"]
    result = flowjax(
        "sweep", answering, "--video", clip, *question, "--answer", "A", *EDGES, "--out",
        tmp_path / "run",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert calls["prefills"] == 1
