"""Predicted effects against finite differences, and closed gates against knockouts."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flowjax.edges import Edge, Knockout, cut_table, edge_mask
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeGates, causal_mask
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.report.statistics import rank_correlation
from flowjax.screen.gradient import (
    PARTS,
    POINTS,
    edge_effects,
    edges_between,
    gradient,
    margin,
    margin_of,
    rivals_of,
)
from flowjax.sweeps.engine import GROUP_STEP, planned, prefill
from flowjax.sweeps.reference import last_logits
from tests.strategies import knockouts, layouts
from tests.sweeps.test_engine import HEADS, LAYERS, VARIANTS, embeddings, long_layout
from tests.sweeps.test_plan import config


def layout_of(frame=3):
    names = ["system"] * 2 + [f"frame_{index}" for index in range(3) for _ in range(frame)]
    names += ["instruction", "question_stem", "question_stem", "option_A", "option_B"]
    return TokenLayout.from_cells([*names, "instruction", "last"], "option_A")


def gates(layout, edges, allowed):
    cut = np.stack([edge.cut(layout) for edge in edges])
    return EdgeGates(jnp.asarray(layout.cell), jnp.asarray(cut), jnp.asarray(allowed, jnp.float32))


@jax.jit
def logits_of(model, embedded, mask):
    return model.last_logits(model(embedded, mask).output, embedded)


plain_logits = jax.jit(last_logits)
margin_at = jax.jit(margin)


def asked(model, x, count=5):
    """The likeliest token, and a few rivals."""
    everything = causal_mask(LAYERS, jnp.zeros(len(x.x), jnp.int32))
    logits = np.asarray(plain_logits(model, x, everything))
    answer = int(logits.argmax())
    return answer, rivals_of(answer, np.argsort(-logits)[:count].tolist(), len(logits))


@settings(max_examples=6)
@given(st.data(), st.sampled_from(sorted(VARIANTS)))
def test_a_closed_gate_is_the_knockout(data, variant):
    layout = data.draw(layouts())
    knockout = data.draw(knockouts(layout, LAYERS, HEADS))
    model, x = VARIANTS[variant], embeddings(layout)
    mask = edge_mask(layout, [knockout], layers=LAYERS, heads=HEADS)
    allowed = np.ones((LAYERS, HEADS, 1), np.float32)
    heads = range(HEADS) if knockout.heads is None else knockout.heads
    allowed[np.ix_(knockout.layers, list(heads))] = 0
    cut = jnp.asarray(cut_table(layout, knockout))[None]
    closed = EdgeGates(jnp.asarray(layout.cell), cut, jnp.asarray(allowed))
    np.testing.assert_allclose(
        logits_of(model, x, closed), plain_logits(model, x, mask), rtol=0, atol=1e-5
    )


def test_open_gates_change_nothing():
    layout = long_layout()
    model, x = VARIANTS["gqa"], embeddings(layout)
    edges = edges_between(layout, PARTS)
    found = logits_of(model, x, gates(layout, edges, np.ones((LAYERS, 1, len(edges)))))
    np.testing.assert_allclose(found, planned(model, x, layout, []).base, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("variant", "heads"), [("gqa", True), ("qk-norm", False)])
def test_effects_are_finite_differences_of_the_gates(variant, heads):
    """For every gate: (f(1 - h) - f(1 + h)) / 2h, where f is the answer's margin."""
    layout = layout_of()
    model, x = VARIANTS[variant], embeddings(layout)
    edges = edges_between(layout, PARTS)
    answer, rivals = asked(model, x)
    found = edge_effects(model, x, layout, edges, answer, rivals, heads=heads, points=(1.0,))
    shape, step = (LAYERS, HEADS if heads else 1, len(edges)), 1e-2

    def of(allowed):
        mask = gates(layout, edges, allowed)
        return margin_at(model, x, mask, jnp.asarray(answer), jnp.asarray(rivals))

    expected = np.zeros(shape)
    for index in np.ndindex(*shape):
        bump = np.zeros(shape)
        bump[index] = step
        expected[index] = (of(1 - bump) - of(1 + bump)) / (2 * step)
    assert found.shape == shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert np.abs(expected).max() > 0.02, "the gates change nothing"


def test_effects_of_all_heads_are_their_sum():
    layout = layout_of()
    model, x = VARIANTS["mha"], embeddings(layout)
    edges = edges_between(layout, PARTS)
    answer, rivals = asked(model, x)
    by_head, shared = (
        edge_effects(model, x, layout, edges, answer, rivals, heads=heads)
        for heads in (True, False)
    )
    np.testing.assert_allclose(by_head.sum(1, keepdims=True), shared, atol=1e-5)


def test_a_row_whose_all_is_cut_reads_nothing():
    layout = layout_of()
    edges = (Edge.parse("last->last"),)
    mask = gates(layout, edges, np.zeros((1, 1, 1))).at(0)
    weights = jnp.zeros((2, 1, layout.length)).at[..., -1].set(1)
    rows = jnp.array([layout.length - 1])
    assert not mask.gated(weights, rows, jnp.arange(layout.length)).any()


def test_predictions_rank_knockouts_of_a_sure_answer():
    """The unembedding is scaled until nothing but the answer has any probability."""
    layout = layout_of(6)
    model, x = copy.deepcopy(VARIANTS["mha"]), embeddings(layout)
    assert model.unembedding is not None
    model.unembedding.kernel[...] = model.unembedding.kernel[...] * 1000
    edges = edges_between(layout, PARTS)
    answer, rivals = asked(model, x)
    found = edge_effects(model, x, layout, edges, answer, rivals, heads=True)
    cuts = [
        Knockout((edge,), (layer,), (head,))
        for layer in range(LAYERS)
        for head in range(HEADS)
        for edge in edges
    ]
    answers = planned(model, x, layout, cuts)
    logits = np.stack([answers.base, *answers.collect(len(cuts))])
    assert jax.nn.softmax(logits[0])[answer] > 0.999
    margins = np.asarray(margin_of(jnp.asarray(logits), answer, rivals))
    assert rank_correlation(found.ravel(), margins[1:] - margins[0]) > 0.9


def test_rivals_are_the_other_options_or_all_other_tokens():
    assert np.flatnonzero(rivals_of(3, [2, 3, 5], 8)).tolist() == [2, 5]
    assert np.flatnonzero(rivals_of(1, [2, 3], 4)).tolist() == [2, 3]
    assert np.flatnonzero(rivals_of(1, [], 4)).tolist() == [0, 2, 3]


def test_edges_between_groups():
    layout = layout_of()
    edges = edges_between(layout, PARTS)
    assert edges[0] == Edge.parse("cross_frame")
    assert Edge("video", "last") in edges
    assert Edge("last", "video") not in edges
    one = TokenLayout.from_cells(["frame_0", "question_stem", "last"])
    assert list(map(str, edges_between(one, PARTS))) == [
        "video->video", "video->question", "video->last", "question->question",
        "question->last", "last->last",
    ]  # fmt: skip


def test_cost_is_at_most_twelve_forwards():
    """As the compiler counts them; a loop over layers counts as one layer in both programs."""
    sizes, length = config(layers=2, width=256, heads=4), 576
    model = Decoder(sizes, jnp.dtype(jnp.float32), nnx.Rngs(0))
    embedded = Embedded.of(jnp.zeros((length, 256))).padded(length)
    cut = jnp.zeros((24, GROUP_STEP, GROUP_STEP), bool)
    gates = jnp.zeros(length, jnp.int32), cut, jnp.ones((2, 4, 24))
    rivals = jnp.ones(sizes.vocabulary, bool)
    forward = prefill.lower(model, embedded).compile().cost_analysis()
    both = gradient.lower(model, embedded, *gates, jnp.asarray(0), rivals).compile().cost_analysis()
    assert forward is not None and both is not None
    assert forward["flops"] > 1e9
    assert 1 + len(POINTS) * both["flops"] / forward["flops"] <= 12
