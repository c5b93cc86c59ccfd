"""Shares of video tokens that settings keep, and the tokens with the highest scores."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SHARES = (0.75, 0.5, 0.25, 0.125, 0.0625)
"""From the dearest to the cheapest."""


def share_of(tokens: int, share: float) -> int:
    """So many of some tokens, at least one."""
    return max(1, round(share * tokens))


def most(score: Float[Array, "*rows v"], count: int) -> Int[Array, "*rows k"]:
    """Indices of the `count` largest of every row, ascending; of equal ones the first."""
    return jnp.sort(jax.lax.top_k(score, count)[1], axis=-1).astype(jnp.int32)
