"""Layers stacked along a leading axis, so that compile time does not grow with depth."""

from collections.abc import Callable
from typing import TypeVar

import jax
from flax import nnx
from jaxtyping import Array, Int

Layer = TypeVar("Layer", bound=nnx.Module)


def stacked(make: Callable[[nnx.Rngs], Layer], count: int, rngs: nnx.Rngs) -> Layer:
    """One module whose every parameter has a leading axis of `count` layers."""

    @nnx.split_rngs(splits=count)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs: nnx.Rngs) -> Layer:
        return make(rngs)

    return create(rngs)


def layer_at(layers: Layer, index: int | Int[Array, ""]) -> Layer:
    """Layer `index` of a stack; inside a loop over `index` no other layer is copied."""
    graph, parameters = nnx.split(layers)
    return nnx.merge(
        graph,
        jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), parameters
        ),
    )
