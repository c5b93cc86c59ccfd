"""Pruned attention with plain XLA operations: loops over live blocks, so dead ones cost nothing.

One query block after the other: its full blocks, then its partial ones, with an online softmax.
Loop bounds are values of the block map, so maps of one size share compiled code.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32

from flowjax.kernels.pruned_attention.blocks import BlockMap, unpack
from flowjax.masks import NOBODY
from flowjax.precision import PRECISION


class _Rows(NamedTuple):
    """Query rows by block: query [blocks, heads, block_q, d], position [blocks, block_q]."""

    query: Array
    position: Array


class _Columns(NamedTuple):
    """Key rows by block: key, value [blocks, heads, block_k, d]; the others [blocks, block_k]."""

    key: Array
    value: Array
    position: Array
    class_: Array


class _Softmax(NamedTuple):
    """An online softmax: highest score and sum of weights of each row, weighted sum of values."""

    top: Float[Array, "heads rows"]
    total: Float[Array, "heads rows"]
    summed: Float[Array, "heads rows d"]


@jax.jit
def attention(
    query: Float[Array, "q heads d"],
    key: Float[Array, "k kv_heads d"],
    value: Float[Array, "k kv_heads d"],
    query_position: Int[Array, " q"],
    key_position: Int[Array, " k"],
    blocks: BlockMap,
) -> Float[Array, "q heads d"]:
    """Attention over the live blocks of a block map; see `pruned_attention`."""
    heads, kv_heads = query.shape[1], key.shape[1]
    rows = _Rows(_by_block(query, blocks.block_q), _by_block(query_position, blocks.block_q))
    columns = _Columns(
        _by_block(key, blocks.block_k),
        _by_block(value, blocks.block_k),
        _by_block(key_position, blocks.block_k, fill=NOBODY),
        jnp.asarray(blocks.column_class).reshape(-1, blocks.block_k),
    )
    if len(blocks.visits) == 1 or len(blocks.table_of_head) == 1:
        output = _one_table(rows, columns, blocks, jnp.asarray(blocks.table_of_head)[0])
    else:

        def one_head(head: Int32[Array, ""]) -> Array:
            kv_head = head // (heads // kv_heads)
            return _one_table(
                rows._replace(query=jax.lax.dynamic_slice_in_dim(rows.query, head, 1, 1)),
                columns._replace(
                    key=jax.lax.dynamic_slice_in_dim(columns.key, kv_head, 1, 1),
                    value=jax.lax.dynamic_slice_in_dim(columns.value, kv_head, 1, 1),
                ),
                blocks,
                blocks.table_of_head[head],
            )[:, 0]

        output = jnp.moveaxis(jax.lax.map(one_head, jnp.arange(heads)), 0, 1)
    joined = output.transpose(0, 2, 1, 3).reshape(-1, *query.shape[1:])
    return joined[: len(query)]


def _by_block(array: Array, block: int, fill: int = 0) -> Array:
    """Rows padded to whole blocks: [blocks, block] or, with heads, [blocks, heads, block, d]."""
    pad = [(0, -len(array) % block)] + [(0, 0)] * (array.ndim - 1)
    split = jnp.pad(array, pad, constant_values=fill).reshape(-1, block, *array.shape[1:])
    return split.swapaxes(1, 2) if array.ndim == 3 else split


def _one_table(
    rows: _Rows, columns: _Columns, blocks: BlockMap, table: Int32[Array, ""]
) -> Float[Array, "blocks heads rows d"]:
    """Attention of heads that share a table."""
    visits, bounds = blocks.visits[table], blocks.bounds[table]
    row_words = blocks.row_words[table]

    def one_block(index: Int32[Array, ""]) -> Array:
        heads, height, width = rows.query.shape[1:]
        kv_heads = columns.key.shape[1]
        grouped = rows.query[index].reshape(kv_heads, heads // kv_heads * height, width)
        first, masked, end, first_words = bounds[index]

        def visit(number: Int32[Array, ""], state: _Softmax, partial: bool) -> _Softmax:
            at = unpack(visits[number]).key_block
            scores = jnp.einsum(
                "hqd,hkd->hqk",
                grouped,
                columns.key[at],
                precision=PRECISION,
                preferred_element_type=jnp.float32,
            ) / math.sqrt(width)
            if partial:
                allowed = _allowed(
                    row_words[first_words + number - masked],
                    rows.position[index],
                    columns.class_[at],
                    columns.position[at],
                )
                allowed = jnp.tile(allowed, (heads // kv_heads, 1))
                scores = jnp.where(allowed, scores, -jnp.inf)
            return _update(state, scores, columns.value[at])

        shape = grouped.shape
        state = _Softmax(
            jnp.full(shape[:2], -jnp.inf), jnp.zeros(shape[:2]), jnp.zeros(shape, jnp.float32)
        )
        state = jax.lax.fori_loop(first, masked, lambda i, s: visit(i, s, False), state)
        state = jax.lax.fori_loop(masked, end, lambda i, s: visit(i, s, True), state)
        output = state.summed / jnp.where(state.total == 0, 1.0, state.total)[..., None]
        return output.astype(rows.query.dtype).reshape(heads, height, width)

    return jax.lax.map(one_block, jnp.arange(len(rows.query)))


def _allowed(
    row_words: Int32[Array, "words q"],
    row_position: Int[Array, " q"],
    column_class: Int32[Array, " k"],
    column_position: Int[Array, " k"],
) -> Bool[Array, "q k"]:
    """The edges of a partial block."""
    words = row_words[0][:, None]
    for number in range(1, len(row_words)):
        words = jnp.where((column_class >> 5) == number, row_words[number][:, None], words)
    bit = jax.lax.shift_right_logical(*jnp.broadcast_arrays(words, column_class & 31)) & 1
    return (bit == 1) & (row_position[:, None] >= column_position[None, :])


def _update(
    state: _Softmax, scores: Float[Array, "heads rows k"], value: Float[Array, "heads k d"]
) -> _Softmax:
    """Take one more block into the softmax."""
    top = jnp.maximum(state.top, scores.max(-1))
    base = jnp.where(top == -jnp.inf, 0.0, top)
    weights = jnp.exp(scores - base[..., None])
    kept = jnp.exp(state.top - base)
    product = jnp.einsum(
        "hqk,hkd->hqd",
        weights.astype(value.dtype),
        value,
        precision=PRECISION,
        preferred_element_type=jnp.float32,
    )
    return _Softmax(
        top, state.total * kept + weights.sum(-1), state.summed * kept[..., None] + product
    )
