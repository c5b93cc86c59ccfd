"""Patches in the planned engine against whole forwards, and what an edit costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowjax.edges import Knockout
from flowjax.errors import FlowjaxError
from flowjax.models.decoder import Keep
from flowjax.models.edit import Edit
from flowjax.patches import Patch, site_shape
from flowjax.sweeps.plan import footprint
from flowjax.sweeps.protocol import Protocol
from tests.strategies import knockouts, layouts
from tests.sweeps.test_engine import HEADS, LAYERS, VARIANTS, compare, embeddings, long_layout

MODEL = VARIANTS["gqa"]
SITES = ("residual", "attention", "heads", "mlp")


def values(layout, at, rank, seed=0):
    """Random values with all axes of a site, or without layers, or without positions as well."""
    whole = (LAYERS, layout.length, *site_shape(MODEL.config, at))
    shape = whole[2 - rank :]
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@st.composite
def patches(draw, layout, at, how, shared):
    layers = st.lists(st.integers(0, LAYERS - 1), min_size=1, max_size=LAYERS, unique=True)
    group = st.sampled_from(layout.groups)
    some = st.lists(st.integers(0, layout.length - 1), min_size=1, max_size=4, unique=True)
    rows = draw(st.one_of(group, some.map(tuple)))
    return Patch(shared, rows, tuple(draw(layers)), at, how)


@settings(max_examples=6)
@given(st.data())
def test_planned_patches_are_those_of_whole_forwards(data):
    layout = data.draw(layouts())
    at, how = (
        data.draw(st.sampled_from(SITES)),
        data.draw(st.sampled_from(["replace", "add", "scale"])),
    )
    shared = values(layout, at, data.draw(st.integers(0, 2)))
    chosen = data.draw(st.lists(patches(layout, at, how, shared), min_size=1, max_size=3))
    cut = data.draw(st.lists(knockouts(layout, LAYERS, HEADS), max_size=2))
    compare(MODEL, embeddings(layout), layout, [*chosen[:1], *cut, *chosen[1:]])


def test_a_sweep_of_patches_over_layers_and_groups():
    layout, other = long_layout(12), embeddings(long_layout(12), seed=5)
    keep = Keep(outputs=("residual",))
    hidden = jax.jit(lambda x: MODEL(x, keep=keep).outputs["residual"])(other)
    asked = Protocol((), 1, patches=tuple(Patch(hidden, name) for name in ("frame_1", "last")))
    cells = asked.cells(layout, LAYERS, HEADS)
    assert [(cell.knockout.name, cell.centre) for cell in cells[:2]] == [
        ("residual:frame_1", 0),
        ("residual:frame_1", 1),
    ]
    logits = compare(MODEL, embeddings(layout), layout, [cell.knockout for cell in cells])
    theirs = jax.jit(lambda x: MODEL.last_logits(MODEL(x).output, x))(other)
    # After the last layer, a frame reaches nothing and the last position is all there is.
    base = jax.jit(lambda x: MODEL.last_logits(MODEL(x).output, x))(embeddings(layout))
    np.testing.assert_allclose(logits[LAYERS - 1], base, rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits[-1], theirs, rtol=0, atol=1e-5)


def test_scaling_a_head_to_nothing():
    """By a factor per head, at what the heads give before they are mixed."""
    layout = long_layout(12)
    factor = jnp.ones((HEADS, 1)).at[2].set(0)
    everywhere = Patch(factor, tuple(range(layout.length)), None, "heads", "scale")
    logits = compare(MODEL, embeddings(layout), layout, [everywhere])
    every = "+".join(f"{name}->{target}" for name in layout.cells for target in layout.cells)
    cut = compare(MODEL, embeddings(layout), layout, [Knockout(every, range(LAYERS), (2,))])
    np.testing.assert_allclose(logits, cut, rtol=0, atol=1e-4)


def test_an_edit_that_is_not_there_costs_nothing():
    """The program without an edit is that of an edit that changes nothing."""
    x = embeddings(long_layout(12))

    def program(edit):
        return str(jax.make_jaxpr(lambda x: MODEL(x, edit=edit).output)(x))

    plain = program(None)
    for at in SITES:
        assert program(Edit(lambda layer, x: x, at)) == plain
        assert program(Edit(lambda layer, x: x + 1, at)) != plain


def test_an_edit_is_differentiable_and_maps():
    """The gradient by a steering vector is that of finite differences, for several at once."""
    layout = long_layout(12)
    x = embeddings(layout)

    @jax.jit
    @jax.vmap
    def steered(vector):
        edit = Edit(lambda layer, x: jnp.where(layer == 1, x + vector, x))
        return MODEL.last_logits(MODEL(x, edit=edit).output, x)[3]

    width = MODEL.config.width
    ways = jnp.asarray(np.random.default_rng(0).normal(size=(2, width)), jnp.float32)
    slope = jax.grad(lambda vectors: steered(vectors).sum())(jnp.zeros((2, width)))
    step = 1e-2
    measured = (steered(step * ways) - steered(-step * ways)) / (2 * step)
    np.testing.assert_allclose((slope * ways).sum(1), measured, rtol=2e-2, atol=1e-3)


def test_where_a_patch_begins():
    layout = long_layout(12)
    patch = Patch(0.0, "question_stem", (3, 2))
    start = footprint(layout, patch)
    assert (start.start, start.first_row) == (2, layout.positions("question_stem")[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Patch(0.0, "last", ()), "no layer is given"),
        (lambda: Patch(0.0, "last", (1, 1)), "layer 1 is given twice"),
        (lambda: Patch(0.0, (-1,)), "position -1"),
        (lambda: bound(Patch(0.0, "lost")), "'lost' does not exist"),
        (lambda: bound(Patch(0.0, (10_000,))), "position 10000 does not exist"),
        (lambda: bound(Patch(0.0, "last", (LAYERS,))), f"layer {LAYERS} does not exist"),
        (lambda: bound(Patch(np.zeros((3, 5)), "last")), r"shape \[3, 5\] do not fit"),
    ],
)
def test_patches_that_fit_nothing_are_refused(make, message):
    with pytest.raises(FlowjaxError, match=message):
        make()


def bound(patch):
    return patch.arrays(long_layout(12), LAYERS, site_shape(MODEL.config, patch.at))
