"""Rotary position embedding in its half-split form (Su et al. 2021, arXiv 2104.09864)."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Rotary(NamedTuple):
    """Cosines and sines of the rotation angle of every row: float32 [n, head_dim] each."""

    cos: Float[Array, "n d"]
    sin: Float[Array, "n d"]


class RotaryEmbedding(Protocol):
    """A variant of rotary embedding: a frozen dataclass of its constants."""

    def __call__(self, position: Int[Array, "axes n"], length: int | Int[Array, ""]) -> Rotary:
        """Angles of rows.

        Args:
            position: one row of positions per axis; text-only variants have one axis.
            length: positions of the whole sequence, which some variants depend on.
        """
        ...


@dataclass(frozen=True)
class Rope:
    """Plain rotary embedding: angle `position / theta**(2i / head_dim)` for pair i."""

    head_dim: int
    theta: float

    def __call__(self, position: Int[Array, "axes n"], length: int | Int[Array, ""]) -> Rotary:
        """Angles from the first axis; `length` is not read by this variant."""
        del length
        exponent = jnp.arange(0, self.head_dim, 2, dtype=jnp.float32) / self.head_dim
        angle = position[0].astype(jnp.float32)[:, None] / self.theta**exponent
        angle = jnp.concatenate([angle, angle], axis=-1)
        return Rotary(jnp.cos(angle), jnp.sin(angle))


def rotate(x: Float[Array, "n heads d"], rotary: Rotary) -> Float[Array, "n heads d"]:
    """Rotate every head of every row; computed in float32, returned in the dtype of `x`."""
    x32 = x.astype(jnp.float32)
    first, second = jnp.split(x32, 2, axis=-1)
    swapped = jnp.concatenate([-second, first], axis=-1)
    return (x32 * rotary.cos[:, None] + swapped * rotary.sin[:, None]).astype(x.dtype)
