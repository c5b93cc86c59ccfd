"""First-order effects against finite differences, and closed gates against knockouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flowjax.edges import Edge, Knockout, count_edges, edge_mask
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeMask, GatedMask
from flowjax.models.attention import masked_softmax
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.screen.gradient import (
    PARTS,
    edge_effects,
    edges_between,
    gate_effects,
    gated_log_probability,
    gradient,
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


def gated(layout, table):
    return GatedMask(jnp.asarray(layout.cell), jnp.asarray(table, jnp.float32))


@jax.jit
def gated_logits(model, embedded, mask):
    return gated_log_probability(model, embedded, mask)[1]


plain_logits = jax.jit(last_logits)


@settings(max_examples=6)
@given(st.data(), st.sampled_from(sorted(VARIANTS)))
def test_a_closed_gate_is_the_knockout(data, variant):
    layout = data.draw(layouts())
    chosen = data.draw(st.lists(knockouts(layout, LAYERS, HEADS), min_size=1, max_size=3))
    model, x = VARIANTS[variant], embeddings(layout)
    mask = edge_mask(layout, chosen, layers=LAYERS, heads=HEADS)
    allowed = jnp.broadcast_to(mask.allowed, (LAYERS, HEADS, *mask.allowed.shape[2:]))
    exact = plain_logits(model, x, EdgeMask(mask.group, allowed))
    np.testing.assert_allclose(
        gated_logits(model, x, gated(layout, allowed)), exact, rtol=0, atol=1e-5
    )


def test_open_gates_change_nothing():
    layout = long_layout()
    model, x = VARIANTS["gqa"], embeddings(layout)
    effects = gate_effects(model, x, layout, heads=True)
    base = planned(model, x, layout, []).base
    np.testing.assert_allclose(effects.logits, base, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("variant", "heads"), [("gqa", True), ("qk-norm", False)])
def test_effects_are_finite_differences_of_the_gates(variant, heads):
    """For every gate: (f(1 - h) - f(1 + h)) / 2h, where f is the answer's log-probability."""
    layout = layout_of()
    model, x = VARIANTS[variant], embeddings(layout)
    effects = gate_effects(model, x, layout, heads=heads)
    token = jnp.asarray(int(np.argmax(effects.logits)))
    cells = len(layout.cells)
    shape = (LAYERS, HEADS if heads else 1, cells, cells)
    step = 2e-2

    @jax.jit
    def of(gates):
        return gated_log_probability(model, x, gated(layout, gates), token)[0]

    def difference(index):
        bump = jnp.zeros(shape).ravel().at[index].set(step).reshape(shape)
        return (of(jnp.ones(shape) - bump) - of(jnp.ones(shape) + bump)) / (2 * step)

    indices = jnp.arange(int(np.prod(shape)))
    expected = np.asarray(jax.lax.map(difference, indices, batch_size=64)).reshape(shape)
    np.testing.assert_allclose(effects.effect, expected, rtol=0, atol=1e-3)
    assert np.abs(expected).max() > 0.02, "the gates change nothing"
    for target in range(cells):
        for source in range(cells):
            table = np.zeros((cells, cells), bool)
            table[target, source] = True
            if not count_edges(layout, table):
                assert (effects.effect[..., target, source] == 0).all()


def test_effects_of_edges_add_up():
    layout = layout_of()
    model, x = VARIANTS["mha"], embeddings(layout)
    by_head = gate_effects(model, x, layout, heads=True)
    shared = gate_effects(model, x, layout, heads=False)
    edges = edges_between(layout, PARTS)
    np.testing.assert_allclose(
        edge_effects(by_head, layout, edges).sum(1, keepdims=True),
        edge_effects(shared, layout, edges),
        atol=1e-5,
    )
    cells = edges_between(layout, layout.cells)
    total = edge_effects(by_head, layout, [edge for edge in edges if edge != Edge.CROSS_FRAME])
    np.testing.assert_allclose(
        total.sum(-1), edge_effects(by_head, layout, cells).sum(-1), atol=1e-5
    )
    across = [Edge(f"frame_{s}", f"frame_{t}") for t in range(3) for s in range(t)]
    np.testing.assert_allclose(
        edge_effects(by_head, layout, edges)[..., edges.index(Edge.parse("cross_frame"))],
        edge_effects(by_head, layout, across).sum(-1),
        atol=1e-5,
    )


def test_every_row_keeps_its_weight_so_gates_into_it_sum_to_nothing():
    """Scaling all gates into a target alike changes no attention: their effects cancel."""
    layout = layout_of()
    effects = gate_effects(VARIANTS["gqa"], embeddings(layout), layout, heads=True)
    np.testing.assert_allclose(effects.effect.sum(-1), 0, atol=1e-5)
    assert np.abs(effects.effect).max() > 0.01


def test_small_effects_predict_exact_knockouts():
    """Where an edge matters little, the first order is nearly everything."""
    layout = layout_of(6)
    model, x = VARIANTS["mha"], embeddings(layout)
    effects = gate_effects(model, x, layout, heads=True)
    edges = edges_between(layout, layout.cells)
    predicted = edge_effects(effects, layout, edges)
    token = int(np.argmax(effects.logits))
    chosen = [(3, 1, Edge("system", "last")), (2, 0, Edge("system", "option_A"))]
    knockouts = [Knockout((edge,), (layer,), (head,)) for layer, head, edge in chosen]
    answers = planned(model, x, layout, knockouts)
    log_p = jax.nn.log_softmax(np.stack([answers.base, *answers.collect(len(chosen))]))[:, token]
    for (layer, head, edge), exact in zip(chosen, log_p[1:] - log_p[0], strict=True):
        value = predicted[layer, head, edges.index(edge)]
        np.testing.assert_allclose(value, exact, rtol=0.5, atol=2e-4)


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


def test_a_closed_gate_hides_a_score_of_any_size():
    """Far above and far below the open ones; and its gradient there is finite."""
    scores = jnp.array([[300.0, 1.0, 2.0], [-300.0, 1.0, 2.0], [300.0, 1.0, 2.0]])
    gates = jnp.array([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    expected = masked_softmax(scores, gates > 0)
    np.testing.assert_allclose(masked_softmax(scores, gates), expected, atol=1e-7)
    slope = jax.grad(lambda gates: (masked_softmax(scores, gates) * scores).sum())(gates)
    assert np.isfinite(slope).all()


def test_cost_is_about_three_forwards():
    """As the compiler counts them; a loop over layers counts as one layer in both programs."""
    sizes, length = config(layers=2, width=256, heads=4), 576
    model = Decoder(sizes, jnp.dtype(jnp.float32), nnx.Rngs(0))
    embedded = Embedded.of(jnp.zeros((length, 256))).padded(length)
    group = jnp.zeros(length, jnp.int32)
    gates = jnp.ones((2, 4, GROUP_STEP, GROUP_STEP), jnp.float32)
    forward = prefill.lower(model, embedded).compile().cost_analysis()
    both = gradient.lower(model, embedded, group, gates).compile().cost_analysis()
    assert forward["flops"] > 1e9
    assert both["flops"] <= 4 * forward["flops"]


def test_gates_multiply():
    """A gate of 1/2 on a source is a source whose exponential counts half."""
    scores = jnp.array([[0.3, -0.2, 1.0]])
    half = masked_softmax(scores, jnp.array([[0.5, 1.0, 1.0]]))
    shifted = jax.nn.softmax(scores + jnp.log(jnp.array([[0.5, 1.0, 1.0]])))
    np.testing.assert_allclose(half, shifted, rtol=1e-6)


def test_gated_rows_are_the_edge_masks():
    layout = layout_of()
    cut = edge_mask(layout, [Knockout("video->last", (1,))], layers=2, heads=1)
    targets, sources = jnp.arange(3, layout.length), jnp.arange(layout.length + 2)
    for layer in range(2):
        np.testing.assert_array_equal(
            gated(layout, cut.allowed).at(layer).rows(targets, sources) == 1,
            cut.at(layer).rows(targets, sources),
        )
