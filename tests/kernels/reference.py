"""Pruned attention in its plainest form: every score, masked by the edge mask."""

import jax
from jaxtyping import Array, Float, Int

from flowjax.masks import EdgeMask
from flowjax.models.attention import Sources, attend


@jax.jit
def attention(
    query: Float[Array, "q heads d"],
    key: Float[Array, "k kv_heads d"],
    value: Float[Array, "k kv_heads d"],
    mask: EdgeMask,
    query_position: Int[Array, " q"],
    key_position: Int[Array, " k"],
) -> Float[Array, "q heads d"]:
    """What every implementation must compute; reads no block map. Makes a [heads, q, k] array."""
    return attend(query, query_position, [Sources(key, value, key_position)], mask).output
