"""Layers stacked along a leading axis, so that compile time does not grow with depth."""

from collections.abc import Callable
from typing import TypeVar

import jax
from flax import nnx
from jaxtyping import Array, Int

AT_USE = "at_use"
AtUse = Callable[[nnx.State], nnx.State]
"""What becomes of a layer's parameters where the layer is computed, such as where they lie."""

Layer = TypeVar("Layer", bound=nnx.Module)


def stacked(make: Callable[[nnx.Rngs], Layer], count: int, rngs: nnx.Rngs) -> Layer:
    """One module whose every parameter has a leading axis of `count` layers.

    Its `at_use` is None; see `layer_at`.
    """

    @nnx.split_rngs(splits=count)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs: nnx.Rngs) -> Layer:
        return make(rngs)

    layers = create(rngs)
    setattr(layers, AT_USE, None)
    return layers


def layer_at(layers: Layer, index: int | Int[Array, ""]) -> Layer:
    """Layer `index` of a stack; inside a loop over `index` no other layer is copied.

    Where the stack has an `at_use`, each of the layer's parameters goes through it.
    """
    graph, parameters = nnx.split(layers)
    one = jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), parameters
    )
    at_use: AtUse | None = getattr(layers, AT_USE, None)
    return nnx.merge(graph, one if at_use is None else at_use(one))
