"""Attention of chosen rows against attention written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.compilation import memory_of
from flowjax.edges import Knockout, edge_mask, parse_edges
from flowjax.lens.read import read_attention
from flowjax.models.decoder import Keep
from flowjax.models.rope import rotate
from flowjax.models.stack import layer_at
from flowjax.padding import pad_prompt, padded_mask
from tests.lens.tiny import HEADS, LAYERS, LAYOUT, decoder, prompt

MODEL = decoder()


@jax.jit
def traced(x, mask):
    return MODEL(x, mask, keep=Keep(hidden=True))


def written_out(knockouts) -> np.ndarray:
    """All attention weights [layers, heads, n, n], from queries and keys of a full forward."""
    mask = edge_mask(LAYOUT, knockouts, layers=LAYERS, heads=HEADS)
    trace = traced(prompt(), mask)
    rows = jnp.arange(LAYOUT.length)
    found = []
    for index in range(LAYERS):
        layer = layer_at(MODEL.layers, index)
        x = layer.attention_norm(trace.hidden[index])
        query, key = (
            np.asarray(rotate(project(x).reshape(len(x), -1, 8), trace.rotary), np.float64)
            for project in (layer.query, layer.key)
        )
        key = np.repeat(key, HEADS // key.shape[1], axis=1)
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(8)
        weights = np.exp(scores) * np.asarray(mask.at(index).rows(rows, rows))
        total = weights.sum(-1, keepdims=True)
        found.append(weights / np.where(total == 0, 1, total))
    return np.stack(found)


@pytest.mark.parametrize("target", ["last", "option_A", "question"])
@pytest.mark.parametrize("edge", [None, "video->question+cross_frame", "video->last"])
def test_attention_of_a_group_is_the_mean_of_its_rows(target, edge):
    knockouts = [] if edge is None else [Knockout(parse_edges(edge), (1,))]
    rows = LAYOUT.positions(target)
    more = (0, 16 - len(rows))  # what is added counts nothing
    targets = np.pad(rows, more, mode="edge")
    share = np.pad(np.full(len(rows), 1 / len(rows), np.float32), more)
    read = read_attention(
        MODEL,
        pad_prompt(prompt()),
        padded_mask(LAYOUT, knockouts, MODEL.config),
        jnp.asarray(targets),
        jnp.asarray(share),
    )
    expected = written_out(knockouts)[:, :, rows].mean(2)
    ours = np.asarray(read.attention)
    np.testing.assert_allclose(ours[..., : LAYOUT.length], expected, atol=1e-5)
    assert not ours[..., LAYOUT.length :].any()


def test_only_the_asked_rows_are_kept():
    """Memory grows with the rows asked for: one of every head and layer each."""
    padded, mask = pad_prompt(prompt()), padded_mask(LAYOUT, (), MODEL.config)
    sizes = {}
    for rows in (1, LAYOUT.length):
        targets, share = jnp.zeros(rows, jnp.int32), jnp.zeros(rows)
        read = jax.jit(lambda *asked: read_attention(MODEL, padded, mask, *asked))
        sizes[rows] = memory_of(read.lower(targets, share).compile()).temp_size_in_bytes
    row = LAYERS * HEADS * len(padded.x) * 4
    assert sizes[LAYOUT.length] - sizes[1] > (LAYOUT.length - 1) * row * 0.8
