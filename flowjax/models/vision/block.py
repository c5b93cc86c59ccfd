"""The pre-norm block that every vision encoder here is a stack of.

`x + attention(norm(x))`, then `x + mlp(norm(x))`. What differs between the encoders, rotations and
who reads whom, is a function that each gives (`Read`); the rest is in `BlockConfig`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flowjax.models.activations import Activation, activate
from flowjax.models.attention import Sources, attend
from flowjax.models.rope import Rotary, rotate
from flowjax.precision import PRECISION

Norm = Literal["layer_norm", "rms_norm"]

Read = Callable[[Array, Array, Array], Array]
"""Queries, keys and values [..., n, heads, d] to what the queries read, of the same shape."""


@dataclass(frozen=True)
class BlockConfig:
    """Sizes and variants of a block.

    norm: statistics are in float32, and a layer norm's variance is computed in two passes.
    qkv_bias: whether queries, keys and values have biases.
    qk_norm_eps: of root-mean-square norms over the whole width of queries and keys; None: none.
    gated: whether the MLP multiplies `activation(gate)` and `up`; otherwise it is `activation(up)`.
    scaled: whether each branch is multiplied by a learned scale before it is added.
    """

    width: int
    mlp_width: int
    heads: int
    norm_eps: float
    activation: Activation
    norm: Norm = "layer_norm"
    qkv_bias: bool = True
    qk_norm_eps: float | None = None
    gated: bool = False
    scaled: bool = False


class Block(nnx.Module):
    """One block; see this module."""

    def __init__(self, config: BlockConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        def linear(inputs: int, outputs: int, bias: bool = True) -> nnx.Linear:
            return nnx.Linear(
                inputs,
                outputs,
                use_bias=bias,
                dtype=dtype,
                param_dtype=dtype,
                precision=PRECISION,
                rngs=rngs,
            )

        def scale() -> nnx.Param | None:
            return nnx.Param(jnp.ones(width, dtype)) if config.scaled else None

        def qk_norm() -> nnx.Module | None:
            eps = config.qk_norm_eps
            return None if eps is None else norm_of("rms_norm", width, eps, dtype, rngs)

        width = config.width
        self.attention_norm = norm_of(config.norm, width, config.norm_eps, dtype, rngs)
        self.query = linear(width, width, config.qkv_bias)
        self.key = linear(width, width, config.qkv_bias)
        self.value = linear(width, width, config.qkv_bias)
        self.query_norm = qk_norm()
        self.key_norm = qk_norm()
        self.output = linear(width, width)
        self.attention_scale = scale()
        self.mlp_norm = norm_of(config.norm, width, config.norm_eps, dtype, rngs)
        self.gate = linear(width, config.mlp_width) if config.gated else None
        self.up = linear(width, config.mlp_width)
        self.down = linear(config.mlp_width, width)
        self.mlp_scale = scale()
        self.config = config

    def __call__(self, x: Float[Array, "*lead n width"], read: Read) -> Array:
        """Tokens through the block: [..., n, width].

        read: how attention reads.
        """
        normed = self.attention_norm(x)
        (query, key), value = self._reads(normed), self.value(normed)
        query, key, value = (
            part.reshape(*x.shape[:-1], self.config.heads, -1) for part in (query, key, value)
        )
        x = x + _scaled(self.output(read(query, key, value).reshape(x.shape)), self.attention_scale)
        normed = self.mlp_norm(x)
        up = self.up(normed)
        if self.gate is None:
            up = activate(self.config.activation, up)
        else:
            up = activate(self.config.activation, self.gate(normed)) * up
        return x + _scaled(self.down(up), self.mlp_scale)

    def reads(self, x: Float[Array, "*lead n width"]) -> tuple[Array, Array]:
        """Queries and keys of tokens, [..., n, width] each, before any rotation."""
        return self._reads(self.attention_norm(x))

    def _reads(self, normed: Float[Array, "*lead n width"]) -> tuple[Array, Array]:
        query, key = self.query(normed), self.key(normed)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key


def _scaled(x: Array, scale: nnx.Param | None) -> Array:
    return x if scale is None else scale[...] * x


def norm_of(
    kind: Norm, width: int, epsilon: float, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.LayerNorm | nnx.RMSNorm:
    """A norm over the width, with statistics in float32, and the variance in two passes."""
    make = nnx.LayerNorm if kind == "layer_norm" else nnx.RMSNorm
    return make(
        width,
        epsilon=epsilon,
        dtype=dtype,
        param_dtype=dtype,
        use_fast_variance=False,
        rngs=rngs,
    )


def read_everything(
    query: Float[Array, "n heads d"],
    key: Float[Array, "n heads d"],
    value: Float[Array, "n heads d"],
) -> Float[Array, "n heads d"]:
    """Every token reads every token."""
    position = jnp.arange(len(query), dtype=jnp.int32)
    return attend(query, position, [Sources(key, value, position)], mask=None).output


def rotated(rotary: Rotary, read: Read) -> Read:
    """Queries and keys [n, heads, d] are rotated before they are read."""

    def turned(query: Array, key: Array, value: Array) -> Array:
        return read(rotate(query, rotary), rotate(key, rotary), value)

    return turned
