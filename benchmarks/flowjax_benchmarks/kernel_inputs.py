"""What the kernel's benchmark attends over, and programs that do it several times."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from flowjax.kernels.pruned_attention import (
    BlockMap,
    block_map,
    pruned_attention,
    stack_maps,
    suited_shape,
)
from flowjax.layout import TokenLayout
from flowjax_benchmarks.sweep import prompt_layout

TOKENS_PER_FRAME = 144


@dataclass(frozen=True)
class Shape:
    """What is measured on.

    calls: one after the other in one program for one time, so that starting it costs little.
    """

    heads: int
    width: int
    dtype: str
    frames: tuple[int, ...]
    calls: int


class Attention(NamedTuple):
    """A call that starts an attention, and what waits for its result."""

    start: Callable[[], Any]
    wait: Callable[[Any], Any] = jax.block_until_ready


@dataclass(frozen=True, eq=False)
class Inputs:
    """Random rows of one prompt."""

    shape: Shape
    layout: TokenLayout
    query: jax.Array
    key: jax.Array
    value: jax.Array

    @classmethod
    def random(cls, shape: Shape, frames: int) -> "Inputs":
        """Normal numbers."""
        layout = prompt_layout(frames, TOKENS_PER_FRAME)
        rows = (layout.length, shape.heads, shape.width)
        keys = jax.random.split(jax.random.key(0), 3)
        return cls(shape, layout, *(jax.random.normal(key, rows, shape.dtype) for key in keys))

    @functools.cached_property
    def position(self) -> np.ndarray:
        """Of all rows."""
        return np.arange(self.layout.length, dtype=np.int32)

    def blocks(self, table: Bool[np.ndarray, "1 g g"]) -> BlockMap:
        """The map of a layer."""
        layer = self.layout.cell, table, self.position, self.position
        block_q, block_k = suited_shape(*layer, self.shape.width)
        return block_map(*layer, block_q=block_q, block_k=block_k)

    def maps(
        self, tables: Sequence[Bool[np.ndarray, "1 g g"]]
    ) -> tuple[list[BlockMap], list[BlockMap], list[float]]:
        """Layers' maps, the same on the device, and the seconds each took to build.

        Those on the device are of one size where they have blocks of one shape.
        """
        maps, seconds = zip(*map(self._timed_map, tables), strict=True)
        shapes = [(each.block_q, each.block_k) for each in maps]
        same: dict[int, BlockMap] = {}
        for shape in set(shapes):
            alike = [index for index, each in enumerate(shapes) if each == shape]
            stacked = stack_maps([maps[index] for index in alike])
            for place, index in enumerate(alike):
                same[index] = jax.tree.map(
                    lambda leaf, place=place: jnp.asarray(leaf[place]), stacked
                )
        return list(maps), [same[index] for index in range(len(maps))], list(seconds)

    def _timed_map(self, table: Bool[np.ndarray, "1 g g"]) -> tuple[BlockMap, float]:
        start = time.perf_counter()
        blocks = self.blocks(table)
        return blocks, time.perf_counter() - start

    @functools.cached_property
    def pruned(self) -> Callable[[BlockMap], Array]:
        """The kernel that the default takes, as one program for maps of one size."""
        position = jnp.asarray(self.position)

        def attention(query: Array, key: Array, value: Array, blocks: BlockMap) -> Array:
            return pruned_attention(
                query,
                key,
                value,
                query_position=position,
                key_position=position,
                blocks=blocks,
            )

        return functools.partial(repeated(attention, self.shape.calls), *self.rows)

    @property
    def dense(self) -> Callable[[], Array]:
        """JAX's causal attention; cuDNN's on a GPU."""

        def attention(query: Array, key: Array, value: Array) -> Array:
            return jax.nn.dot_product_attention(
                query[None],
                key[None],
                value[None],
                is_causal=True,
                implementation="cudnn" if jax.default_backend() == "gpu" else None,
            )[0]

        return functools.partial(repeated(attention, self.shape.calls), *self.rows)

    @property
    def rows(self) -> tuple[Array, Array, Array]:
        """Query, key and value."""
        return self.query, self.key, self.value


def repeated(attention: Callable[..., Array], calls: int) -> Callable[..., Array]:
    """A program of calls one after the other; its result is the last one's."""

    def run(query: Array, key: Array, value: Array, *rest: BlockMap) -> Array:
        def step(_: int, query: Array) -> Array:
            # A number of the output goes into the next query: else calls are merged into one.
            output = attention(query, key, value, *rest)
            return query.at[0, 0, 0].set(output[0, 0, 0])

        if calls > 1:
            query = jax.lax.fori_loop(1, calls, step, query)
        return attention(query, key, value, *rest)

    return jax.jit(run)
