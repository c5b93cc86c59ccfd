"""Padding changes nothing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.edges import Knockout, edge_mask
from flowjax.lens.read import read_logits
from flowjax.models.decoder import Keep
from flowjax.padding import pad_prompt, padded_dense, padded_mask
from flowjax.pathway import random_edges
from flowjax.sweeps.reference import last_logits
from tests.lens.tiny import HEADS, LAYERS, LAYOUT, decoder, prompt

MODEL = decoder()
KNOCKOUT = Knockout("video->question+cross_frame", (0, 2))


@pytest.mark.parametrize("heads", [None, (1, 3)])
def test_a_padded_mask_cuts_the_same_edges(heads):
    knockouts = [Knockout(KNOCKOUT.edges, KNOCKOUT.layers, heads)]
    plain = edge_mask(LAYOUT, knockouts, layers=LAYERS, heads=HEADS)
    padded = padded_mask(LAYOUT, knockouts, MODEL.config)
    n, size = LAYOUT.length, len(padded.group)
    assert size > n
    rows = jnp.arange(size)
    for layer in range(LAYERS):
        ours = padded.at(layer).rows(rows, rows)[:, :n, :n]
        np.testing.assert_array_equal(ours, plain.at(layer).rows(rows[:n], rows[:n]))


def test_logits_are_those_of_a_full_forward():
    embedded = prompt()
    masks = [
        (
            edge_mask(LAYOUT, cut, layers=LAYERS, heads=HEADS),
            padded_mask(LAYOUT, cut, MODEL.config),
        )
        for cut in ((), (KNOCKOUT,))
    ]
    dense = random_edges(LAYOUT, 0.6, seed=1, layers=LAYERS).dense()
    masks.append((dense, padded_dense(dense)))
    found = []
    for plain, padded in masks:
        expected = jax.jit(last_logits)(MODEL, embedded, plain)
        found.append(np.asarray(read_logits(MODEL, pad_prompt(embedded), padded)))
        np.testing.assert_allclose(found[-1], expected, rtol=0, atol=1e-5)
    assert min(np.abs(a - b).max() for a, b in itertools.pairwise(found)) > 1e-2


def test_without_a_mask_nothing_is_cut():
    padded = pad_prompt(prompt())
    run = jax.jit(lambda mask: MODEL(padded, mask, keep=Keep(hidden=True)))
    plain, table = run(None), run(padded_mask(LAYOUT, (), MODEL.config))
    np.testing.assert_allclose(plain.hidden, table.hidden, atol=1e-6)
    assert plain.attention is None
