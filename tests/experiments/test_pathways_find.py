import json

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flowjax.errors import FlowjaxError
from flowjax.pathway import Pathway, read_pathway
from flowjax.report.statistics import Interval
from flowjax.runs.halves import halves
from flowjax_experiments.pathways.find import (
    Frontier,
    Point,
    best,
    candidates,
    frontier,
    mean_curves,
    span,
)
from tests.experiments.checks import assert_redrawn
from tests.report.tables import sweep_table


@pytest.fixture(scope="module")
def run(flowjax, answering, benchmark, swept, tmp_path_factory):
    out = tmp_path_factory.mktemp("find") / "run"
    thresholds = ["--threshold", 0, "--threshold", 3]
    arguments = ["--data", benchmark, "--sweep", swept, *thresholds, "--out", out]
    result = flowjax("pathways", "find", answering, *arguments)
    assert result.code == 0, result.err
    return out, result.out


def test_the_pathway_comes_from_the_first_half_alone(run, swept):
    out, _ = run
    sweep = pq.read_table(swept / "results.parquet")
    first, second = halves(sweep["sample_id"].to_pylist())
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert set(settings["first half"]) == first
    by_hand = {}
    for edge in ("cross_frame", "video->question", "question->last"):
        of_edge = sweep.filter(
            (pc.field("edge") == edge) & pc.field("sample_id").isin(sorted(first))
        ).sort_by([("sample_id", "ascending"), ("centre", "ascending")])
        by_hand[edge] = of_edge["relative_change"].to_numpy().reshape(len(first), -1).mean(axis=0)
    (found, *_) = settings["found"]
    for field, change in zip(
        ("cross_frame", "video_to_question", "question_to_last"), by_hand.values(), strict=True
    ):
        falls = np.flatnonzero(change < 0)
        expected = list(range(falls[0], falls[-1] + 1)) if len(falls) else []
        assert found[field] == expected
    assert len(second) == 4


def test_the_file_is_one_of_the_pathways_and_can_be_used(run, flowjax, answering, benchmark):
    out, printed = run
    pathway = read_pathway(out / "found.json", 8)
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert pathway.name in [found["name"] for found in settings["found"]]
    assert f"{pathway.name} *" in printed
    table = pq.read_table(out / "results.parquet")
    judged = frontier(table, set(table["sample_id"].to_pylist()) - set(settings["first half"]))
    assert judged.full.n == 4
    assert len(judged.points) == len(settings["found"]) + 1
    video = next((benchmark / "video").rglob("*.mp4"))
    result = flowjax(
        "generate", answering, video, "Where?", "--pathway", out / "found.json",
        "--max-new-tokens", 2,
    )  # fmt: skip
    assert result.code == 0, result.err


def test_redrawn_from_rows(run, flowjax):
    assert_redrawn(flowjax, *run)


def test_a_sweep_of_another_model_is_refused(flowjax, other, benchmark, swept, tmp_path):
    arguments = ["--data", benchmark, "--sweep", swept, "--out", tmp_path / "run"]
    result = flowjax("pathways", "find", other, *arguments)
    assert result.code == 2
    assert "sweep of another model" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--form", "both"], "--form 'both'"),
        (["--tolerance", 2], "--tolerance 2"),
        (["--threshold", -1], "--threshold"),
        (["--seeds", -1], "--seeds -1"),
    ],
)
def test_bad_input_is_named(flowjax, answering, benchmark, swept, tmp_path, arguments, words):
    given = ["--data", benchmark, "--sweep", swept, "--out", tmp_path / "run", *arguments]
    result = flowjax("pathways", "find", answering, *given)
    assert result.code == 2
    assert words in result.err


EDGES = {"cross-frame": ["cross_frame"], "vql-to-ql": ["video->question", "question->last"]}
PEAK = {"cross_frame": 1, "video->question": 3, "question->last": 5}


def falls(edge, sample, layer):
    """Largest at the edge's peak, halved with every layer from it; more in later samples."""
    return -40.0 * (1 + sample) * 0.5 ** abs(layer - PEAK[edge])


def test_ranges_by_hand():
    table = sweep_table(EDGES, falls, samples=2, layers=8)
    change = mean_curves(table, ["s0"], 8)
    assert change["cross_frame"][1] == -40
    low, middle, high = candidates(change, (10.0, 40.0, 5.0), "strict")
    assert (low.name, low.cross_frame) == ("found at 5%", (0, 1, 2, 3, 4))
    assert (middle.name, middle.video_to_question) == ("found at 10%", (1, 2, 3, 4, 5))
    assert middle.question_to_last == (3, 4, 5, 6, 7)
    assert high == Pathway("found at 40%", "strict", 8, (1,), (3,), (5,))
    assert len(candidates(change, (40.0, 39.0, 38.5), "paper")) == 1
    (nothing,) = candidates(change, (1000.0,), "paper")
    assert nothing.cross_frame == nothing.question_to_last == ()


def test_a_gap_is_bridged_and_rises_never_count():
    assert span(np.array([1.0, -9.0, 3.0, -9.0, -1.0]), 5.0) == (1, 2, 3)
    assert span(np.array([9.0, 0.0, 50.0]), 0.0) == ()


def test_a_sweep_without_an_edge_or_sample_is_refused():
    table = sweep_table({"cross-frame": ["cross_frame"]}, falls, samples=2)
    with pytest.raises(FlowjaxError, match="no edge 'video->question'"):
        mean_curves(table, ["s0"], 5)
    with pytest.raises(FlowjaxError, match="no rows of these samples"):
        mean_curves(table, ["x"], 5)
    with pytest.raises(FlowjaxError, match="around 5 of 8 layers"):
        mean_curves(table, ["s0"], 8)


def point(name, kept, accuracy, full=0.9):
    at = Interval(10, accuracy, accuracy, accuracy)
    change = Interval(10, accuracy - full, accuracy - full, accuracy - full)
    return Point(name, kept, at, change, None, None)


def test_the_fewest_edges_that_lose_little_are_chosen():
    points = (point("a", 0.9, 0.9), point("b", 0.5, 0.89), point("c", 0.3, 0.6))
    found = Frontier(Interval(10, 0.9, 0.9, 0.9), points)
    assert best(found, ["a", "b", "c"], 0.02) == "b"
    assert best(found, ["a", "b", "c"], 0.0) == "a"
    assert best(found, ["a", "b", "c"], 0.5) == "c"
    assert best(found, ["b", "c"], 0.0) == "b"
