"""`flowjax pathways evaluate` through the command line, and its comparisons by hand."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from flowjax.errors import FlowjaxError
from flowjax.pathway import PRESETS, Pathway, default_pathway, write_pathway
from flowjax.report.sign_flips import adjusted_p
from flowjax.report.statistics import Interval, mean_interval, paired_interval
from flowjax_experiments.pathways.evaluate import MEASURES, Evaluate, against_random, conditions
from tests.experiments.checks import assert_redrawn, assert_refused, rows_of, settings_of

LAYERS = 8


@pytest.fixture(scope="module")
def ran(flowjax, answering, benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("pathways") / "run"
    result = flowjax(
        "pathways", "evaluate", answering, "--data", benchmark, "--out", out, "--seeds", 2
    )
    assert result.code == 0, result.err
    return out, result.out


def test_rows(ran):
    rows = rows_of(ran[0])
    order = [("full", "", -1)]
    for form in ("paper", "strict"):
        order += [("pathway", form, -1), ("random", form, 0), ("random", form, 1)]
    assert [(row["kind"], row["form"], row["seed"]) for row in rows] == order * 8
    for start in range(0, len(rows), len(order)):
        sample = rows[start : start + len(order)]
        full = sample[0]
        assert full["kept_fraction"] == 1 and full["new_answer"] == full["base_answer"]
        for row in sample:
            assert row["sample_id"] == full["sample_id"]
            assert row["new_correct"] == (row["new_answer"] == row["true_answer"])
            assert 0 < row["true_probability"] < 1 and 0 < row["base_probability"] < 1
        paper, strict = (sample[i]["kept_fraction"] for i in (1, 4))
        assert strict < paper < 1
        for pathway, draws in ((sample[1], sample[2:4]), (sample[4], sample[5:7])):
            for draw in draws:
                # The last edge of a layer is cut whole.
                assert 0 <= draw["kept_fraction"] - pathway["kept_fraction"] < 1e-3
            assert draws[0]["true_probability"] != draws[1]["true_probability"]
    changed = [row["base_probability"] for row in rows]
    assert np.ptp(changed) > 1e-2
    names = [pathway["name"] for pathway in settings_of(ran[0])["pathways"]]
    assert names == ["LLaVA-NeXT-7B-Video-FT, 8 layers"] * 2


def test_summary_and_figures_need_no_model(flowjax, ran):
    out, printed = ran
    rows = rows_of(out)
    for kind, form, name in (
        ("full", "", "all edges"),
        ("pathway", "strict", "pathway, strict form"),
        ("random", "paper", "random, as many as paper"),
    ):
        chosen = [row for row in rows if (row["kind"], row["form"]) == (kind, form)]
        kept = 100 * np.mean([row["kept_fraction"] for row in chosen])
        for measure, column in MEASURES.items():
            mean = 100 * np.mean([row[column] for row in chosen])
            lines = [line for line in printed.splitlines() if f"│ {name} " in line]
            line = lines[list(MEASURES).index(measure)]
            assert f" {kept:.1f} " in line and f" {mean:.2f} " in line
    assert_redrawn(flowjax, out, printed)


def test_the_same_seeds_give_the_same_answers(flowjax, answering, benchmark, ran, tmp_path):
    out = tmp_path / "run"
    asked = ["--data", benchmark, "--limit", 1, "--task", "colour", "--seeds", 1, "--form", "paper"]
    result = flowjax("pathways", "evaluate", answering, *asked, "--out", out)
    assert result.code == 0, result.err
    again = {(row["kind"], row["seed"]): row["true_probability"] for row in rows_of(out)}
    assert len(again) == 3
    for row in rows_of(ran[0]):
        if row["sample_id"] == "colour/0" and row["form"] != "strict" and row["seed"] < 1:
            assert again[row["kind"], row["seed"]] == row["true_probability"]


def test_which_pathways_are_meant(tmp_path):
    found = Evaluate().pathways("videollama3", 28)
    assert found == tuple(default_pathway("videollama3", 28, form) for form in ("paper", "strict"))
    assert found[0] == PRESETS["videollama3-7b"]
    (strict,) = Evaluate(pathway="llava-next-13b", form="strict").pathways("pllava", 40)
    assert strict == dataclasses.replace(PRESETS["llava-next-13b"], form="strict")
    (scaled,) = Evaluate(pathway="llava-next-13b", form="paper").pathways("pllava", 8)
    assert scaled == PRESETS["llava-next-13b"].scaled(8)
    own = Pathway("mine", "strict", 8, (0, 1), (2,), (3, 4))
    write_pathway(tmp_path / "own.json", own)
    path = str(tmp_path / "own.json")
    assert Evaluate(pathway=path).pathways("pllava", 8) == (own,)
    both = Evaluate(pathway=path, form="both").pathways("pllava", 8)
    assert [pathway.form for pathway in both] == ["paper", "strict"]
    with pytest.raises(FlowjaxError, match="8 layers; the model has 32"):
        Evaluate(pathway=path).pathways("pllava", 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pathway", "llava"], ["'llava'", "llava-next-7b"]),
        (["--form", "loose"], ["'loose'", "paper, strict or both"]),
        (["--seeds", -1], ["--seeds -1"]),
    ],
)
def test_bad_options_are_refused(flowjax, answering, benchmark, options, words, tmp_path):
    asked = ["pathways", "evaluate", answering, "--data", benchmark, "--out", tmp_path / "run"]
    assert_refused(flowjax(*asked, *options), *words)
    assert not (tmp_path / "run").exists()


def table_of(rng, samples=6, seeds=3) -> pa.Table:
    rows = []
    for sample in range(samples):
        for kind, seed in [("full", -1), ("pathway", -1), *(("random", s) for s in range(seeds))]:
            row = dict.fromkeys(Evaluate.SCHEMA.names, "x")
            row |= dict.fromkeys(("num_frames", "video_tokens"), 8)
            row |= dict.fromkeys(("base_id", "new_id"), 7)
            row |= {"sample_id": f"s{sample}", "kind": kind, "seed": seed, "options": 4}
            row |= {"form": "" if kind == "full" else "paper", "correct": True}
            row |= {"kept_fraction": 1.0 if kind == "full" else 0.4}
            row |= {"kept_edges": 100 if kind == "full" else 40, "all_edges": 100}
            row |= {"new_correct": bool(rng.random() < 0.6)}
            row |= {"true_probability": rng.random(), "base_probability": rng.random()}
            rows.append(row)
    return pa.Table.from_pylist(rows, Evaluate.SCHEMA)


def same(a: Interval, b: Interval) -> bool:
    """But for p."""
    return (a.n, a.mean, a.low, a.high) == (b.n, b.mean, b.low, b.high)


def test_comparisons_by_hand():
    table = table_of(np.random.default_rng(0))
    rows = table.to_pylist()

    def of(kind, column):
        values = [row[column] for row in rows if row["kind"] == kind]
        mean = np.sort(np.array(values, float).reshape(6, -1)).mean(1)  # over seeds first
        return mean.astype(bool) if column == "new_correct" and kind != "random" else mean

    found = {at.kind: at for at in conditions(table)}
    assert [found[kind].seeds for kind in ("full", "pathway", "random")] == [1, 1, 3]
    assert found["random"].kept == pytest.approx(0.4)
    (pair,) = against_random(table)
    for measure, column in MEASURES.items():
        for kind, at in found.items():
            assert at.of[measure].mean == mean_interval(of(kind, column))
            expected = paired_interval(of(kind, column), of("full", column))
            assert same(at.of[measure].change, expected)
        difference = paired_interval(of("pathway", column), of("random", column))
        assert same(pair.of[measure], difference)
    # All of a table's differences are tested together.
    names = [(kind, m) for kind in ("full", "pathway", "random") for m in MEASURES]
    values = [of(k, MEASURES[m]).astype(float) - of("full", MEASURES[m]) for k, m in names]
    p = adjusted_p(np.stack(values, axis=1))
    assert [found[kind].of[m].change.p for kind, m in names] == p.tolist()


def test_the_order_of_rows_changes_nothing():
    table = table_of(np.random.default_rng(0))
    first = [index for index, name in enumerate(table["kind"].to_pylist()) if name == "full"]
    rest = np.random.default_rng(1).permutation(np.setdiff1d(np.arange(len(table)), first))
    mixed = table.take([*first, *rest.tolist()])
    assert {at.kind: at for at in conditions(mixed)} == {at.kind: at for at in conditions(table)}
    assert against_random(mixed) == against_random(table)


def test_a_sample_without_a_condition_is_named():
    table = table_of(np.random.default_rng(0))
    dropped = ("s3", "pathway")
    rows = enumerate(table.to_pylist())
    kept = [index for index, row in rows if (row["sample_id"], row["kind"]) != dropped]
    with pytest.raises(FlowjaxError, match="no result for pathway paper"):
        conditions(table.take(kept))


def test_thousands_of_samples_in_any_order():
    """Groups are found by what rows say, whatever the order and the parts they come in."""
    rng = np.random.default_rng(4)
    table = table_of(rng, samples=2000, seeds=2)
    at = table.schema.get_field_index("task")
    tasks = pa.array([f"task {int(name[1:]) % 7}" for name in table["sample_id"].to_pylist()])
    table = table.set_column(at, table.schema.field(at), tasks)
    mixed = table.take(rng.permutation(len(table)))
    parts = [mixed.slice(start, 517) for start in range(0, len(mixed), 517)]
    first, other = ({c.name: c for c in conditions(t)} for t in (table, pa.concat_tables(parts)))
    assert first.keys() == other.keys()
    for name, at in first.items():
        for measure in MEASURES:
            assert at.of[measure].mean.mean == pytest.approx(other[name].of[measure].mean.mean)
            change = at.of[measure].change
            assert change.mean == pytest.approx(other[name].of[measure].change.mean)
    rows = [row for row in table.to_pylist() if row["kind"] == "pathway"]
    right = np.mean([row["new_correct"] for row in rows])
    assert first["pathway, paper form"].of["accuracy"].mean.mean == pytest.approx(right)


def test_random_edges_of_a_share_of_ones_own(flowjax, answering, benchmark, tmp_path):
    out = tmp_path / "run"
    asked = ["pathways", "evaluate", answering, "--data", benchmark, "--limit", 1]
    result = flowjax(*asked, "--out", out, "--seeds", 2, "--random-share", 0.9)
    assert result.code == 0, result.err
    rows = rows_of(out)
    one = rows[: 1 + 2 + 2]
    assert [(row["kind"], row["form"], row["seed"]) for row in one] == [
        ("full", "", -1), ("pathway", "paper", -1), ("pathway", "strict", -1),
        ("random", "", 0), ("random", "", 1),
    ]  # fmt: skip
    for row in rows:
        assert row["kept_edges"] == pytest.approx(row["kept_fraction"] * row["all_edges"])
        if row["kind"] == "random":
            assert row["kept_fraction"] == pytest.approx(0.9, abs=1e-3)
    assert "random " in result.out and "as many" not in result.out
    assert_refused(flowjax(*asked, "--out", out, "--random-share", 1.5), "--random-share 1.5")
