"""The masked full forward that pruned inference must equal."""

import jax
import jax.numpy as jnp
import numpy as np

from flowjax.edges import edge_mask
from flowjax.masks import EdgeMask
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.models.rope import LongRope, MultimodalRope
from tests.sweeps.test_engine import model_of

LONG = LongRope(8, 1e4, (1.0, 1.5, 2.0, 3.0), (2.0, 3.0, 4.0, 5.0), 40, 1.2)
"""Its long factors hold from 41 positions on."""


def variant(rope=None, **sizes):
    model = model_of(**sizes)
    if rope is None:
        return model
    model.config = model.config.__class__(**vars(model.config) | {"rope": rope})
    return model


VARIANTS = {
    "mha": variant(),
    "gqa, biases": variant(kv_heads=2, qkv_bias=True, theta=1e6),
    "mqa, tied": variant(kv_heads=1, tied=True, head_dim=16),
    "qk-norm, three axes": variant(
        MultimodalRope(8, 1e4, (2, 1, 1), interleaved=True), kv_heads=2, qk_norm=True
    ),
    "long": variant(LONG),
    # Shorter than any prompt, and as long as the usual one: only what is generated lies beyond.
    "window": variant(kv_heads=2, window=9),
    "window of the prompt": variant(kv_heads=2, window=48),
}


def embedded(decoder, layout, *, seed=0, deepstack=0):
    """Random embeddings; positions of a grid where the rotary variant has axes."""
    keys = jax.random.split(jax.random.key(seed), 2)
    width, length = decoder.config.width, layout.length
    position = np.arange(length, dtype=np.int32)[None]
    if isinstance(decoder.config.rope, MultimodalRope):
        video = layout.positions("video")
        grid = np.repeat(position, 3, axis=0)
        grid[1, video] = video[0] + np.arange(len(video)) // 2 % 3
        grid[2, video] = video[0] + np.arange(len(video)) % 2
        position = grid
    return Embedded(
        jax.random.normal(keys[0], (length, width)),
        jnp.asarray(position),
        jax.random.normal(keys[1], (deepstack, length, width)) if deepstack else None,
    )


def mask_of(decoder, layout, knockouts, more=0):
    """The pathway's mask, of a prompt that `more` positions of its last cell follow."""
    config = decoder.config
    mask = edge_mask(layout, knockouts, layers=config.layers, heads=config.heads)
    group = jnp.pad(mask.group, (0, more), constant_values=int(layout.cell[-1]))
    return EdgeMask(group, mask.allowed)


@jax.jit
def logits_at(decoder: Decoder, x: Embedded, mask: EdgeMask, row):
    """Logits at a row of one full forward, rotated as a prompt of the length that `x` has."""
    return decoder.logits(decoder(x, mask).output[row][None])[0]


def masked_tokens(decoder, x, layout, knockouts, tokens):
    """Greedy decoding by whole masked forwards: tokens and the logits of each step."""
    mask = mask_of(decoder, layout, knockouts, tokens)
    start = int(x.rope_position.max()) + 1
    following = jnp.broadcast_to(start + jnp.arange(tokens), (len(x.rope_position), tokens))
    x = x.padded(layout.length + tokens)._replace(
        rope_position=jnp.concatenate([x.rope_position, following], axis=1)
    )
    chosen, logits = [], []
    for row in range(layout.length - 1, layout.length - 1 + tokens):
        logits.append(logits_at(decoder, x, mask, row))
        chosen.append(int(logits[-1].argmax()))
        x = x._replace(x=x.x.at[row + 1].set(decoder.embedding(jnp.asarray(chosen[-1]))))
    return chosen, np.asarray(logits)
