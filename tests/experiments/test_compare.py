import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flowjax.asked.asked import ask_sample
from flowjax.data.benchmark import read_benchmark
from flowjax.edges import Edge, Knockout
from flowjax.models.checkpoint import load_model
from flowjax.sweeps.reference import full_forwards
from flowjax_convert.run import convert
from flowjax_experiments.compare import Compare, cut_accuracies, paired_curves
from tests.experiments.checks import assert_redrawn
from tests.random_checkpoint import write_random_checkpoint

ARGUMENTS = ["--samples", "all", "--limit", 2, "--window", 3, "--edges", "vql-to-ql"]


@pytest.fixture(scope="module")
def run(flowjax, answering, other, benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "run"
    arguments = ["--data", benchmark, *ARGUMENTS, "--out", out]
    result = flowjax("compare", answering, other, *arguments)
    assert result.code == 0, result.err
    return out, result.out


def test_side_a_is_the_sweep_of_model_a(run, swept):
    table = pq.read_table(run[0] / "results.parquet")
    assert table.schema.equals(Compare.SCHEMA)
    windows = table.filter(pc.field("cut") == "window")
    sweep = pq.read_table(swept / "results.parquet")
    for row in windows.filter(pc.field("side") == "a").to_pylist()[::7]:
        (same,) = sweep.filter(
            (pc.field("sample_id") == row["sample_id"])
            & (pc.field("edge") == row["edge"])
            & (pc.field("centre") == row["centre"])
        ).to_pylist()
        for name in ("base_probability", "new_probability", "relative_change"):
            assert row[name] == pytest.approx(same[name], abs=2e-3)
        assert row["new_answer"] == same["new_answer"]
    b = windows.filter(pc.field("side") == "b")
    assert b.num_rows == windows.num_rows / 2
    a_change = windows.filter(pc.field("side") == "a")["relative_change"].to_numpy()
    assert np.abs(b["relative_change"].to_numpy() - a_change).max() > 1


def test_cuts_are_full_forwards_of_both_models(run, answering, other, benchmark):
    table = pq.read_table(run[0] / "results.parquet")
    sample = read_benchmark(benchmark, limit=2)[1]
    rows = table.filter(pc.field("sample_id") == sample.sample_id)
    edges = (Edge.parse("cross_frame"),)
    for side, path in (("a", answering), ("b", other)):
        loaded = load_model(path)
        prepared = ask_sample(loaded, sample)
        half = tuple(range(loaded.config.decoder.layers // 2))
        every = tuple(range(loaded.config.decoder.layers))
        answers = full_forwards(
            loaded.model.decoder,
            prepared.embedded,
            prepared.prompt.layout,
            [Knockout(edges, half), Knockout(edges, every)],
        )
        logits = np.concatenate([answers.base[None], answers.collect(2)])
        found = rows.filter((pc.field("side") == side) & (pc.field("cut") != "window"))
        assert found["cut"].to_pylist() == ["none", "first half", "all layers"]
        texts = [loaded.tokenizer.decode([int(x)]).strip() for x in logits.argmax(axis=1)]
        assert found["new_answer"].to_pylist() == texts
        assert found["new_correct"].to_pylist() == [x == sample.question.answer for x in texts]


def test_redrawn_from_rows(run, flowjax):
    assert_redrawn(flowjax, *run)
    names = {path.name for path in (run[0] / "figures").iterdir()}
    assert names == {"accuracy.png", "curves.png"}


def test_a_copy_differs_nowhere(flowjax, answering, benchmark, tmp_path):
    shutil.copytree(answering, tmp_path / "copy")
    arguments = ["--data", benchmark, *ARGUMENTS, "--out", tmp_path / "run"]
    result = flowjax("compare", answering, tmp_path / "copy", *arguments)
    assert result.code == 0, result.err
    table = pq.read_table(tmp_path / "run" / "results.parquet")
    for curve in paired_curves(table):
        np.testing.assert_array_equal(curve.values["a"], curve.values["b"])
        assert not any(curve.difference(index).mean for index in range(len(curve.layer)))
    for at in cut_accuracies(table):
        assert at.accuracy["a"] == at.accuracy["b"]
        assert at.difference.mean == 0


def test_models_of_another_shape_are_refused(flowjax, answering, benchmark, tmp_path):
    write_random_checkpoint(tmp_path / "hf", ["What moves?"])
    convert(tmp_path / "hf", tmp_path / "model", pooling_shape=(4, 1, 2))
    arguments = ["--data", benchmark, "--out", tmp_path / "run"]
    result = flowjax("compare", answering, tmp_path / "model", *arguments)
    assert result.code == 2
    assert "frames" in result.err and "one architecture" in result.err
    same = flowjax("compare", answering, answering, *arguments)
    assert same.code == 2
    assert "given twice" in same.err


def rows_of(right):
    """Rows of the three cuts; `right[side][cut]` has one letter per sample: y for right."""
    rows = []
    for side, cuts in right.items():
        for cut, letters in cuts.items():
            for index, letter in enumerate(letters):
                row = dict.fromkeys(Compare.SCHEMA.names, "")
                row |= dict.fromkeys(("num_frames", "video_tokens"), 8)
                row |= dict.fromkeys(("base_id", "new_id"), 7)
                row |= {"sample_id": str(index), "side": side, "cut": cut, "centre": -1, "width": 3}
                row |= {"correct": True, "new_correct": letter == "y", "model": f"model {side}"}
                row |= dict.fromkeys(
                    ("base_probability", "new_probability", "relative_change"), 0.0
                )
                rows.append(row)
    return pa.Table.from_pylist(rows, Compare.SCHEMA)


def test_accuracy_by_hand():
    table = rows_of(
        {
            "a": {"none": "yyyy" * 2, "first half": "yynn" * 2, "all layers": "nnnn" * 2},
            "b": {"none": "yyyn" * 2, "first half": "yyyn" * 2, "all layers": "ynnn" * 2},
        }
    )
    none, half, every = cut_accuracies(table)
    assert (none.accuracy["a"].mean, none.accuracy["b"].mean) == (1, 0.75)
    assert (half.change["a"].mean, half.change["b"].mean) == (-0.5, 0)
    assert half.difference.mean == 0.5
    assert (every.change["a"].mean, every.change["b"].mean) == (-1, -0.5)
    assert every.change["a"].p == 2 / 2**8  # no other flip changes every answer one way
    assert every.change["a"].is_effect
    assert not half.change["a"].is_effect
    assert every.difference.mean == 0.5
    assert paired_curves(table) == []
