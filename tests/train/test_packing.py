"""Packed questions are computed as if each stood alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from flowjax.errors import FlowjaxError
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.train.loss import packed_prompt, token_loss
from flowjax.train.packing import Hidden, Segment, pack, packed_mask
from tests.sweeps.test_plan import config

PREFIX = np.arange(7, dtype=np.int32)


def segment(*ids, learned):
    own = np.array(ids, np.int32)
    return Segment(own, own, np.array(learned, np.float32))


def mask(packed, layers=3, hidden=None):
    return packed_mask(jnp.asarray(packed.segment), 4, layers, hidden)


SEGMENTS = [
    segment(3, 9, 4, 2, learned=[0, 0, 1, 0.5]),
    segment(8, 1, learned=[0, 1]),
    segment(5, 5, 6, 7, 1, learned=[0, 0, 0, 0, 1]),
]


def test_what_a_packed_sequence_holds():
    packed = pack(PREFIX, SEGMENTS, 20)
    assert packed.segment.tolist() == [0] * 7 + [1] * 4 + [2] * 2 + [3] * 5 + [-1] * 2
    assert packed.position.tolist() == [[*range(11), 7, 8, *range(7, 12), 0, 0]]
    learned = np.flatnonzero(packed.weight)
    assert packed.target[learned].tolist() == [4, 2, 1, 1]
    assert packed.weight[learned].tolist() == [1, 0.5, 1, 1]
    assert learned.tolist() == [8, 9, 11, 16]


def test_rotary_axes_are_those_that_are_given():
    first = np.stack([np.zeros(7, np.int32), np.arange(7, dtype=np.int32)])
    after = [first[:, :4] + 10, first[:, :2] + 20]
    some = [one._replace(position=two) for one, two in zip(SEGMENTS[:2], after, strict=True)]
    packed = pack(PREFIX, some, 14, first)
    np.testing.assert_array_equal(packed.position[:, :13], np.concatenate([first, *after], 1))
    assert packed.position[:, 13].tolist() == [0, 0]
    assert packed_prompt(jnp.zeros((14, 2)), packed).length == 22


def test_a_segment_that_does_not_fit_is_left_out_whole():
    packed = pack(PREFIX, SEGMENTS, 14)
    assert packed.segment.tolist() == [0] * 7 + [1] * 4 + [2] * 2 + [-1]
    with pytest.raises(FlowjaxError, match="no segment fits beside a prefix of 7 in 8 positions"):
        pack(PREFIX, SEGMENTS, 8)


def test_a_first_token_cannot_be_learned():
    with pytest.raises(FlowjaxError, match="first token"):
        pack(PREFIX, [segment(1, 2, learned=[1, 1])], 20)


def test_packed_losses_are_those_of_each_question_alone():
    sizes = dataclasses.replace(config(layers=3, width=32, heads=2), vocabulary=24)
    decoder = Decoder(sizes, jnp.dtype(jnp.float32), nnx.Rngs(0))
    packed = pack(PREFIX, SEGMENTS, 20)
    prompt = packed_prompt(decoder.embedding(jnp.asarray(packed.ids)), packed)
    found = token_loss(decoder, prompt, packed, mask(packed), chunk=6)
    by_rows = token_loss(decoder, prompt, packed, mask(packed), chunk=6, rows=7)
    np.testing.assert_allclose(by_rows.loss, found.loss, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(by_rows.right, found.right)
    for index, (ids, _, learned, _) in enumerate(SEGMENTS, 1):
        alone = np.concatenate([PREFIX, ids])
        trace = decoder(Embedded.of(decoder.embedding(jnp.asarray(alone))))
        logits = decoder.logits(trace.output)[len(PREFIX) : -1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(ids[1:]))
        rows = np.flatnonzero(packed.segment == index)[:-1]
        np.testing.assert_allclose(found.loss[rows], losses * learned[1:], rtol=0, atol=1e-5)
        right = np.argmax(np.asarray(logits), axis=-1) == ids[1:]
        np.testing.assert_array_equal(np.asarray(found.right)[rows], right)
    assert float(jnp.sum(found.loss[packed.segment < 1])) == 0


@pytest.mark.parametrize("where", [True, False])
def test_segments_cannot_read_what_is_hidden_early(where):
    packed = pack(PREFIX, SEGMENTS, 20)
    shown = mask(packed)
    hidden = mask(packed, hidden=Hidden(np.array([2, 3]), 2, np.array(where)))
    rows = jnp.arange(20)
    for layer in range(3):
        expected = np.array(shown.at(layer).rows(rows, rows))
        if where and layer < 2:
            expected[:, np.ix_(np.flatnonzero(packed.segment > 0), np.array([2, 3]))[0], [2, 3]] = (
                False
            )
        np.testing.assert_array_equal(hidden.at(layer).rows(rows, rows), expected)


def test_the_loss_has_the_gradient_of_finite_differences():
    sizes = dataclasses.replace(config(layers=2, width=32, heads=2), vocabulary=24)
    graph, parameters = nnx.split(Decoder(sizes, jnp.dtype(jnp.float32), nnx.Rngs(0)))
    packed = pack(PREFIX, SEGMENTS, 20)

    def loss(parameters):
        decoder = nnx.merge(graph, parameters)
        prompt = packed_prompt(decoder.embedding(jnp.asarray(packed.ids)), packed)
        return jnp.sum(token_loss(decoder, prompt, packed, mask(packed, 2), chunk=6).loss)

    gradient = jax.jit(jax.grad(loss))(parameters)
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype("f"), parameters)
    slope = sum(
        float(jnp.vdot(a, b))
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    moved = [
        float(jax.jit(loss)(jax.tree.map(lambda p, d, s=s: p + s * d, parameters, direction)))
        for s in (-1e-3, 1e-3)
    ]
    assert (moved[1] - moved[0]) / 2e-3 == pytest.approx(slope, rel=2e-2)
