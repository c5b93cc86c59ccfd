import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flowjax.asked.asked import ask_sample
from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.edges import Edge, Knockout
from flowjax.inference.anchor import continued, tokens_until
from flowjax.models.checkpoint import load_model
from flowjax.models.embedded import Embedded
from flowjax.sweeps.reference import full_forwards
from flowjax_experiments.anchor import Anchor
from tests.experiments.checks import assert_redrawn
from tests.inference.masked import masked_tokens

WINDOW = ["--window", 3, "--edges", "vql-to-ql"]


@pytest.fixture(scope="module")
def video(benchmark):
    return sorted((benchmark / "video").rglob("*.mp4"))[0]


@pytest.fixture(scope="module")
def run(flowjax, answering, video, tmp_path_factory):
    out = tmp_path_factory.mktemp("anchor") / "run"
    asked = ["--video", video, "--question", "What moves?", "--token", 3]
    result = flowjax("anchor", answering, *asked, *WINDOW, "--out", out)
    assert result.code == 0, result.err
    return out, result.out


def test_the_anchor_under_full_forwards_of_the_continued_prompt(run, answering, video):
    """The prompt with two more token ids, embedded as text like any other."""
    table = pq.read_table(run[0] / "results.parquet")
    assert table.schema.equals(Anchor.SCHEMA)
    loaded = load_model(answering)
    model, tokenizer = loaded.model, loaded.tokenizer
    asked = ask_sample(loaded, Sample("", "", video, Question("What moves?", ())))
    prompt, embedded = asked.prompt, asked.embedded
    assert "options" not in prompt.layout.groups
    tokens, _ = masked_tokens(model.decoder, embedded, prompt.layout, (), 3)
    rows = table.to_pylist()
    assert rows[0]["generated"] == tokenizer.decode(tokens[:2])
    assert {row["anchor"] for row in rows} == {tokenizer.decode([tokens[2]])}

    n = prompt.layout.length
    x = jnp.concatenate([embedded.x, model.decoder.embedding(jnp.asarray(tokens[:2]))])
    longer = Embedded.of(x)
    _, layout = continued(model, embedded, prompt.layout, tokens[:2])
    assert layout.positions("last").tolist() == [n - 1, n, n + 1]
    knockouts = [
        Knockout((Edge.parse(row["edge"]),), layers)
        for row in rows
        for layers in [tuple(range(max(0, row["centre"] - 1), min(8, row["centre"] + 2)))]
    ]
    answers = full_forwards(model.decoder, longer, layout, knockouts)
    assert int(answers.base.argmax()) == tokens[2]
    new = jax.nn.softmax(answers.collect(len(rows)))[:, tokens[2]]
    base = float(jax.nn.softmax(answers.base)[tokens[2]])
    np.testing.assert_allclose([row["new_probability"] for row in rows], new, atol=1e-4)
    assert rows[0]["base_probability"] == pytest.approx(base, abs=1e-4)
    assert np.abs(np.asarray(new) - base).max() > 1e-2, "the knockouts change nothing"
    row = rows[0]
    assert row["relative_change"] == pytest.approx(
        100 * (row["new_probability"] - row["base_probability"]) / row["base_probability"]
    )


def test_redrawn_from_rows(run, flowjax):
    out, printed = run
    assert "generated token 3" in printed
    assert_redrawn(flowjax, out, printed)
    assert [path.name for path in (out / "figures").iterdir()] == ["vql-to-ql.png"]


def test_the_first_token_of_a_benchmarks_answers_is_the_sweeps(
    flowjax, answering, benchmark, swept, tmp_path
):
    asked = ["--data", benchmark, "--limit", 1, "--options", "--token", 1]
    result = flowjax("anchor", answering, *asked, *WINDOW, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    rows = pq.read_table(tmp_path / "run" / "results.parquet")
    sweep = pq.read_table(swept / "results.parquet")
    for name in rows["sample_id"].unique().to_pylist():
        of_sweep = sweep.filter(
            (pc.field("sample_id") == name) & (pc.field("edge_set") == "vql-to-ql")
        )
        own = rows.filter(pc.field("sample_id") == name)
        assert own["anchor"].unique().to_pylist() == of_sweep["base_answer"].unique().to_pylist()
        np.testing.assert_allclose(own["new_probability"], of_sweep["new_probability"], atol=1e-4)


def test_a_benchmark_is_asked_without_options(flowjax, answering, benchmark, tmp_path):
    asked = ["--data", benchmark, "--limit", 1, "--task", "colour", "--token", 2]
    out = tmp_path / "run"
    assert flowjax("anchor", answering, *asked, *WINDOW, "--out", out).code == 0
    edge = ["--edge", "option_A->last"]
    result = flowjax("anchor", answering, *asked, "--window", 3, *edge, "--out", tmp_path / "b")
    assert result.code == 2
    assert "'option_A' does not exist" in result.err


def test_an_answer_that_ends_before_the_anchor(answering, video):
    loaded = load_model(answering)
    embedded = ask_sample(loaded, Sample("", "", video, Question("What moves?", ()))).embedded
    tokens = tokens_until(loaded.model, embedded, 3, frozenset())
    assert tokens is not None and len(tokens) == 3
    assert tokens_until(loaded.model, embedded, 3, {tokens[2]}) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--question", "What?"], "--video and --question"),
        (["--data", "x", "--samples", "wrong"], "--samples wrong"),
        (["--data", "x", "--question", "What?"], "not both"),
        (["--token", 0, "--data", "x"], "--token 0"),
    ],
)
def test_bad_input_is_named(flowjax, answering, tmp_path, arguments, words):
    result = flowjax("anchor", answering, *arguments, "--out", tmp_path / "run")
    assert result.code == 2
    assert words in result.err
