"""Rotary position embedding in its half-split form (Su et al. 2021, arXiv 2104.09864)."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Rotary(NamedTuple):
    """Cosines and sines of the rotation angle of every row: float32 [n, head_dim] each."""

    cos: Float[Array, "n d"]
    sin: Float[Array, "n d"]


@runtime_checkable
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


@dataclass(frozen=True)
class LinearRope:
    """Plain rotary embedding of positions divided by `factor` (Chen et al., arXiv 2306.15595)."""

    head_dim: int
    theta: float
    factor: float

    def __call__(self, position: Int[Array, "axes n"], length: int | Int[Array, ""]) -> Rotary:
        """Angles from the first axis; `length` is not read by this variant."""
        del length
        exponent = jnp.arange(0, self.head_dim, 2, dtype=jnp.float32) / self.head_dim
        angle = position[0].astype(jnp.float32)[:, None] / (self.factor * self.theta**exponent)
        angle = jnp.concatenate([angle, angle], axis=-1)
        return Rotary(jnp.cos(angle), jnp.sin(angle))


@dataclass(frozen=True)
class ScaledRope:
    """Plain rotary embedding with a factor per pair: YaRN's and Llama 3.1's, of any length.

    Pair i turns by `position / (factors_i * theta**(2i / head_dim))`; cosines and sines are
    multiplied by `scale`. See `flowjax.models.rope_config` for where the factors come from.
    """

    head_dim: int
    theta: float
    factors: tuple[float, ...]
    scale: float

    def __call__(self, position: Int[Array, "axes n"], length: int | Int[Array, ""]) -> Rotary:
        """Scaled cosines and sines from the first axis; `length` is not read by this variant."""
        del length
        exponent = jnp.arange(0, self.head_dim, 2, dtype=jnp.float32) / self.head_dim
        factor = jnp.asarray(self.factors, jnp.float32)
        angle = position[0].astype(jnp.float32)[:, None] / (factor * self.theta**exponent)
        angle = jnp.concatenate([angle, angle], axis=-1)
        return Rotary(jnp.cos(angle) * self.scale, jnp.sin(angle) * self.scale)


@dataclass(frozen=True)
class DynamicRope:
    """Plain rotary embedding whose base grows with the sequence beyond `positions` (dynamic NTK).

    With f = factor, n = max(length, positions), d = head_dim, the base is
    theta * (f * n / positions - (f - 1))**(d / (d - 2)), as in `transformers`.
    """

    head_dim: int
    theta: float
    factor: float
    positions: int

    def __call__(self, position: Int[Array, "axes n"], length: int | Int[Array, ""]) -> Rotary:
        """Angles from the first axis, for a sequence of `length` positions."""
        longest = jnp.maximum(jnp.asarray(length, jnp.float32), self.positions)
        growth = self.factor * longest / self.positions - (self.factor - 1)
        theta = self.theta * growth ** (self.head_dim / (self.head_dim - 2))
        exponent = jnp.arange(0, self.head_dim, 2, dtype=jnp.float32) / self.head_dim
        angle = position[0].astype(jnp.float32)[:, None] / theta**exponent
        angle = jnp.concatenate([angle, angle], axis=-1)
        return Rotary(jnp.cos(angle), jnp.sin(angle))


@dataclass(frozen=True)
class LongRope:
    """LongRoPE (Ding et al. 2024, arXiv 2402.13753) as Phi-3 has it.

    Pair i turns by `position / (factor_i * theta**(2i / head_dim))`; the factors of the whole
    sequence are `long_factor` if it has more than `original_length` positions, else
    `short_factor`. Cosines and sines are multiplied by `scale` in both cases.
    """

    head_dim: int
    theta: float
    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_length: int
    scale: float

    def __call__(self, position: Int[Array, "axes n"], length: int | Int[Array, ""]) -> Rotary:
        """Scaled cosines and sines from the first axis, for a sequence of `length` positions."""
        factor = jnp.where(
            jnp.asarray(length) > self.original_length,
            jnp.asarray(self.long_factor, jnp.float32),
            jnp.asarray(self.short_factor, jnp.float32),
        )
        exponent = jnp.arange(0, self.head_dim, 2, dtype=jnp.float32) / self.head_dim
        angle = position[0].astype(jnp.float32)[:, None] / (factor * self.theta**exponent)
        angle = jnp.concatenate([angle, angle], axis=-1)
        return Rotary(jnp.cos(angle) * self.scale, jnp.sin(angle) * self.scale)


@dataclass(frozen=True)
class MultimodalRope:
    """Rotary embedding of (time, row, column) positions (Wang et al. 2024, arXiv 2409.12191).

    Pair i turns by `position[axis(i)] / theta**(2i / head_dim)`. Text has the same position on all
    three axes, which makes this plain rotary embedding there.

    sections: of time, row and column, in pairs of dimensions.
    interleaved: False: the first sections[0] pairs read time, the next sections[1] the row, the
        rest the column. True (Qwen3-VL): pairs 1, 4, 7, ... below 3 * sections[1] read the row,
        pairs 2, 5, 8, ... below 3 * sections[2] the column, and all others time.
    factors, scale: as in `ScaledRope`; no factors are factors of 1.
    """

    head_dim: int
    theta: float
    sections: tuple[int, int, int]
    interleaved: bool
    factors: tuple[float, ...] = ()
    scale: float = 1.0

    def __call__(self, position: Int[Array, "axes n"], length: int | Int[Array, ""]) -> Rotary:
        """Angles from three axes, or one that stands for all; `length` is not read."""
        del length
        exponent = jnp.arange(0, self.head_dim, 2, dtype=jnp.float32) / self.head_dim
        three = jnp.broadcast_to(position, (3, position.shape[1])).astype(jnp.float32)
        factor = jnp.asarray(self.factors or 1.0, jnp.float32)
        angle = three[jnp.array(self.axes())].T / (factor * self.theta**exponent)
        angle = jnp.concatenate([angle, angle], axis=-1)
        return Rotary(jnp.cos(angle) * self.scale, jnp.sin(angle) * self.scale)

    def axes(self) -> list[int]:
        """The axis (0 time, 1 row, 2 column) that each pair of dimensions reads."""
        pairs = range(self.head_dim // 2)
        if self.interleaved:
            return [i % 3 if i < 3 * self.sections[i % 3] else 0 for i in pairs]
        bounds = (self.sections[0], self.sections[0] + self.sections[1])
        return [sum(i >= bound for bound in bounds) for i in pairs]


def rotate(x: Float[Array, "n heads d"], rotary: Rotary) -> Float[Array, "n heads d"]:
    """Rotate every head of every row; computed in float32, returned in the dtype of `x`."""
    x32 = x.astype(jnp.float32)
    first, second = jnp.split(x32, 2, axis=-1)
    swapped = jnp.concatenate([-second, first], axis=-1)
    return (x32 * rotary.cos[:, None] + swapped * rotary.sin[:, None]).astype(x.dtype)
