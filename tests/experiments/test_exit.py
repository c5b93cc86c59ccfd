import jax
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from flowjax.asked.asked import ask_sample
from flowjax.data.benchmark import read_benchmark
from flowjax.errors import FlowjaxError
from flowjax.lens.early_exit import calibrate, exits, settled
from flowjax.models.checkpoint import load_model
from flowjax.runs.halves import halves
from flowjax.sweeps.reference import full_forwards
from flowjax_experiments.exit import FRONTIER, TOLERANCES, Exit, Readings, judge
from tests.experiments.checks import assert_redrawn


@pytest.fixture(scope="module")
def run(flowjax, answering, benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("exit") / "run"
    result = flowjax("exit", answering, "--data", benchmark, "--out", out)
    assert result.code == 0, result.err
    return out, result.out


def test_the_last_layer_is_the_model(run, answering, benchmark):
    table = pq.read_table(run[0] / "results.parquet")
    assert table.schema.equals(Exit.SCHEMA)
    loaded = load_model(answering)
    layers = loaded.config.decoder.layers
    letters = [loaded.tokenizer.token_to_id(letter) for letter in "ABCD"]
    for sample in read_benchmark(benchmark, limit=2):
        prepared = ask_sample(loaded, sample)
        layout = prepared.prompt.layout
        base = full_forwards(loaded.model.decoder, prepared.embedded, layout, []).base
        rows = table.filter(pc.field("sample_id") == sample.sample_id).sort_by("layer").to_pylist()
        assert [row["layer"] for row in rows] == list(range(layers))
        expected = np.asarray(jax.nn.softmax(base[np.array(letters)]))
        np.testing.assert_allclose(rows[-1]["probabilities"], expected, atol=1e-4)
        assert rows[-1]["option"] == int(expected.argmax())
        if int(base.argmax()) in letters:
            assert rows[-1]["base_answer"] == "ABCD"[rows[-1]["option"]]
        for row in rows:
            first, second = sorted(row["probabilities"], reverse=True)[:2]
            assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
            assert row["margin"] == pytest.approx(first - second)
            assert row["right"] == ("ABCD"[row["option"]] == sample.question.answer)
    options = Readings.of(table).answer
    assert (options != options[:, -1:]).any(), "no layer says anything else than the last"


def test_rules_and_figure_come_from_rows(run, flowjax):
    out, printed = run
    frontier = out / "frontier.parquet"
    rules = pq.read_table(frontier)
    assert rules.schema.equals(FRONTIER)
    assert rules["tolerance"].to_pylist() == list(TOLERANCES)
    before = frontier.read_bytes()
    assert_redrawn(flowjax, out, printed)
    assert frontier.read_bytes() == before


def test_one_question_has_no_halves(flowjax, answering, benchmark, tmp_path):
    video = next((benchmark / "video").rglob("*.mp4"))
    result = flowjax(
        "exit", answering, "--video", video, "--question", "Where?", "--option", "up",
        "--option", "down", "--answer", "A", "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.code == 2
    assert "at least 2 are needed" in result.err


def test_halves_are_even_and_do_not_depend_on_order():
    names = [f"task/{index}" for index in range(31)]
    first, second = halves(names)
    assert (len(first), len(second)) == (15, 16)
    assert not first & second
    assert halves(reversed(names)) == (first, second)
    assert set(names[:15]) != first


@given(st_numpy.arrays(np.int64, (6, 5), elements=st.integers(0, 2)))
def test_settled_by_brute_force(answer):
    for row, layer in zip(answer, settled(answer), strict=True):
        assert (row[layer:] == row[-1]).all()
        assert layer == 0 or row[layer - 1] != row[-1]


margins = st_numpy.arrays(np.float64, (12, 4), elements=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))


@given(margins, st_numpy.arrays(np.bool_, (12, 4)), st.floats(0, 1))
def test_thresholds_by_brute_force(margin, agrees, tolerance):
    thresholds = calibrate(margin, agrees, tolerance)
    assert thresholds[-1] == 0
    for layer in range(3):
        allowed = [
            candidate
            for candidate in np.unique(margin[:, layer])
            for reaching in [margin[:, layer] >= candidate]
            if ((~agrees[:, layer] & reaching).sum() + 1) / (reaching.sum() + 1) <= tolerance
        ]
        assert thresholds[layer] == (min(allowed) if allowed else np.inf)


def test_a_rule_leaves_after_the_first_open_layer():
    margin = np.array([[0.1, 0.6, 0.2], [0.9, 0.1, 0.1], [0.0, 0.0, 0.0]])
    assert exits(margin, np.array([0.8, 0.5, 0.0])).tolist() == [1, 0, 2]


def test_bad_calibration_is_refused():
    with pytest.raises(FlowjaxError, match="no samples"):
        calibrate(np.zeros((0, 3)), np.zeros((0, 3), bool), 0.1)
    with pytest.raises(FlowjaxError, match="tolerance 2"):
        calibrate(np.zeros((1, 3)), np.zeros((1, 3), bool), 2.0)


def test_a_confident_model_saves_layers_and_loses_nothing():
    """Answers settle at layer 3 of 6, and the margin knows it."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 400)
    answer = np.repeat(truth[:, None], 6, axis=1)
    answer[:, :2] = rng.integers(0, 4, (400, 2))
    margin = np.where(np.arange(6) < 2, rng.uniform(0, 0.3, (400, 6)), 0.9)
    names = tuple(map(str, range(400)))
    readings = Readings(names, answer, margin, answer == truth[:, None])
    first, second = halves(names)
    rules = judge(readings.among(first), readings.among(second))
    assert rules[0].tolerance == 0.02
    assert rules[0].saved.mean == pytest.approx(3)
    assert rules[0].accuracy.mean == rules[0].full.mean == 1
    assert not rules[0].difference.is_effect
    saved = [rule.saved.mean for rule in rules]
    assert saved == sorted(saved)
    assert rules[-1].agreement.mean < 1
