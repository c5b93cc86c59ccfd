import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flowjax.asked.asked import ask_sample
from flowjax.data.benchmark import read_benchmark
from flowjax.edges import Edge, Knockout
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.screen.choose import Gate, choose, mean_effects
from flowjax.screen.gradient import margin_of
from flowjax.sweeps.reference import full_forwards
from flowjax_experiments.screen import Exact, Screen, agreement, rivals, screened
from tests.experiments.checks import assert_redrawn


@pytest.fixture(scope="module")
def run(flowjax, answering, benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("screen") / "run"
    arguments = ["--data", benchmark, "--samples", "all", "--limit", 2, "--top", 6]
    result = flowjax("screen", answering, *arguments, "--out", out)
    assert result.code == 0, result.err
    return out, result.out


def test_every_gate_of_every_sample_has_a_row(run, answering):
    table = pq.read_table(run[0] / "results.parquet")
    assert table.schema.equals(Screen.SCHEMA)
    decoder = load_model(answering, parameters=False).config.decoder
    edges = table["edge"].unique().to_pylist()
    assert "cross_frame" in edges and "video->last" in edges and "last->video" not in edges
    assert table.num_rows == 4 * decoder.layers * decoder.heads * len(edges)
    assert set(table["layer"].to_pylist()) == set(range(decoder.layers))
    assert set(table["head"].to_pylist()) == set(range(decoder.heads))


def test_checked_gates_are_the_knockouts_of_full_forwards(run, answering, benchmark):
    exact = pq.read_table(run[0] / "exact" / "results.parquet")
    assert exact.schema.equals(Exact.SCHEMA)
    loaded = load_model(answering)
    sample = read_benchmark(benchmark, limit=2)[1]
    prepared = ask_sample(loaded, sample)
    rows = exact.filter(pc.field("sample_id") == sample.sample_id).to_pylist()
    assert [row["chosen"] for row in rows] == ["top"] * 6 + ["random"] * 6
    knockouts = [
        Knockout((Edge.parse(row["edge"]),), (row["layer"],), (row["head"],)) for row in rows
    ]
    answers = full_forwards(
        loaded.model.decoder, prepared.embedded, prepared.prompt.layout, knockouts
    )
    base_id = int(np.argmax(answers.base))
    logits = jnp.stack([answers.base, *answers.collect(len(rows))])
    margins = np.asarray(margin_of(logits, base_id, rivals(prepared, base_id)))
    np.testing.assert_allclose([row["exact"] for row in rows], margins[1:] - margins[0], atol=1e-4)
    table = pq.read_table(run[0] / "results.parquet")
    for row in rows:
        same = table.filter(
            (pc.field("sample_id") == sample.sample_id)
            & (pc.field("edge") == row["edge"])
            & (pc.field("layer") == row["layer"])
            & (pc.field("head") == row["head"])
        )
        assert same["predicted"].to_pylist() == [row["predicted"]]
    top = [abs(row["exact"]) for row in rows[:6]]
    assert min(top) > 1e-3, "the largest predictions do nothing"


def test_figures_are_redrawn_from_rows(run, flowjax):
    out, printed = run
    assert "rank correlation of predicted and exact means, 6 largest gates" in printed
    figures = sorted((out / "figures").iterdir())
    assert [path.name for path in figures] == ["gates.png", "predicted-and-exact.png"]
    assert_redrawn(flowjax, out, printed)


def test_shared_gates_are_sums_over_heads(run, flowjax, answering, benchmark, tmp_path):
    arguments = ["--data", benchmark, "--samples", "all", "--limit", 2, "--top", 2, "--no-heads"]
    result = flowjax("screen", answering, *arguments, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    shared = mean_effects(pq.read_table(tmp_path / "run" / "results.parquet"))
    sums: dict[Gate, float] = {}
    for gate, value in mean_effects(pq.read_table(run[0] / "results.parquet")).items():
        key = Gate(gate.edge, gate.layer, -1)
        sums[key] = sums.get(key, 0) + value
    assert sums.keys() == shared.keys()
    for gate, value in sums.items():
        assert shared[gate] == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--top", 1], "--top 1: give at least 2"),
        (["--groups", "pixels"], "--groups 'pixels': choose parts or cells"),
        (["--top", 10**6], "the number of gates"),
    ],
)
def test_bad_input_is_named(flowjax, answering, benchmark, tmp_path, arguments, words):
    data = ["--data", benchmark, "--samples", "all", "--limit", 1]
    result = flowjax("screen", answering, *data, "--out", tmp_path / "run", *arguments)
    assert result.code == 2
    assert words in result.err


def test_choosing_takes_the_largest_and_draws_from_the_rest():
    effects = {Gate("a->b", layer, 0): (-1) ** layer * layer / 10 for layer in range(20)}
    chosen = choose(effects, 5)
    assert [choice.gate.layer for choice in chosen[:5]] == [19, 18, 17, 16, 15]
    assert [choice.why for choice in chosen] == ["top"] * 5 + ["random"] * 5
    drawn = {choice.gate.layer for choice in chosen[5:]}
    assert len(drawn) == 5 and max(drawn) < 15
    assert choose(dict(reversed(effects.items())), 5) == chosen
    assert len(choose(effects, 18)) == 20
    with pytest.raises(FlowjaxError, match="--top 21"):
        choose(effects, 21)


def test_means_and_agreement_by_hand():
    rows = []
    for sample, scale in (("s0", 1.0), ("s1", 3.0)):
        for layer, value in enumerate([0.3, -0.2, 0.1]):
            row = dict.fromkeys(Exact.SCHEMA.names, "")
            row |= dict.fromkeys(("num_frames", "video_tokens"), 8)
            row |= dict.fromkeys(("base_id", "new_id"), 7)
            row |= {"sample_id": sample, "edge": "a->b", "layer": layer, "head": 0}
            row |= {"chosen": "top", "predicted": value, "exact": scale * value**3}
            row |= {"base_probability": 0.5, "new_probability": 0.5, "correct": True}
            rows.append(row)
    found = screened(pa.Table.from_pylist(rows, Exact.SCHEMA))
    assert [at.gate.layer for at in found] == [0, 1, 2]
    assert found[0].exact.mean == pytest.approx(2 * 0.3**3)
    assert found[0].exact.n == 2
    assert agreement(found, "top").rank == pytest.approx(1)
    assert agreement(found, "random").gates == 0
