"""Pruned attention for TPUs: a Pallas kernel whose grid is the list of live blocks.

The grid is (heads, visits), as many visits as the longest table of this layer has: maps that are
stacked or padded for a program that serves others cost no more. The packed visits are prefetched
into scalar memory, and the index maps read them, so the pipeline fetches exactly the live key
blocks, the next one while this one is computed. All visits of a query block follow each other: its
softmax stays in scratch memory from the first to the last.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from flowjax.kernels.pruned_attention.blocks import (
    FULL,
    PARTIAL,
    BlockMap,
    unpack,
)
from flowjax.masks import NOBODY

LANES = 128
SUBLANES = 16
MOST_WORDS = 4
MOST_WIDTH = 256
MOST_VISITS = 128 * 1024
"""Packed visits of all tables; 512 KiB of the 1 MiB scalar memory."""


def refusal(
    query: Float[Array, "q heads d"], key: Float[Array, "k kv_heads d"], blocks: BlockMap
) -> str | None:
    """Why the kernel cannot serve these arrays and this map; None if it can."""
    width, words = query.shape[2], blocks.row_words.shape[2]
    if query.dtype not in (jnp.float32, jnp.bfloat16) or key.dtype != query.dtype:
        return f"dtypes {query.dtype} and {key.dtype}: give float32 or bfloat16, both the same"
    if width > MOST_WIDTH:
        return f"head size {width}: at most {MOST_WIDTH}"
    if blocks.block_q % SUBLANES or blocks.block_k % LANES:
        return (
            f"blocks of {blocks.block_q} x {blocks.block_k} rows: "
            f"give multiples of {SUBLANES} x {LANES}"
        )
    if words > MOST_WORDS:
        return f"more than {32 * MOST_WORDS} classes of source groups in a key block"
    if blocks.visits.size > MOST_VISITS:
        return (
            f"{blocks.visits.size} live blocks over all tables: at most {MOST_VISITS}; "
            "take larger blocks"
        )
    return None


@functools.partial(jax.jit, static_argnames="interpret")
def attention(
    query: Float[Array, "q heads d"],
    key: Float[Array, "k kv_heads d"],
    value: Float[Array, "k kv_heads d"],
    query_position: Int[Array, " q"],
    key_position: Int[Array, " k"],
    blocks: BlockMap,
    *,
    interpret: pltpu.InterpretParams | None = None,
) -> Float[Array, "q heads d"]:
    """Attention over the live blocks of a block map; see `pruned_attention`.

    interpret: run on the CPU, as a simulation of a TPU.
    """
    rows, heads, width = query.shape
    kv_heads = key.shape[1]
    block_q, block_k = blocks.block_q, blocks.block_k
    visits = blocks.visits.shape[1]
    _, partials, words, _ = blocks.row_words.shape
    lanes = -(-width // LANES) * LANES

    # Row data stands upright (on sublanes), column data lies flat (on lanes).
    row_position = jnp.pad(query_position, (0, -rows % block_q)).astype(jnp.int32)[:, None]
    column_position = jnp.pad(
        key_position, (0, -len(key) % block_k), constant_values=NOBODY
    ).astype(jnp.int32)
    column_data = jnp.stack([column_position, blocks.column_class])
    table_of_head = jnp.broadcast_to(blocks.table_of_head, (heads,))

    def query_block(head, number, visits_, tables_, *_):  # noqa: ANN001, ANN002, ANN202
        return unpack(visits_[tables_[head] * visits + number]).query_block, head

    def key_block(head, number, visits_, tables_, *_):  # noqa: ANN001, ANN002, ANN202
        at = unpack(visits_[tables_[head] * visits + number]).key_block
        return at, jax.lax.div(head, heads // kv_heads)  # `//` asks which TPU is there

    def row_block(head, number, visits_, tables_, *_):  # noqa: ANN001, ANN002, ANN202
        return unpack(visits_[tables_[head] * visits + number]).query_block, 0

    def word_block(head, number, visits_, tables_, masked_, words_):  # noqa: ANN001, ANN202
        at = unpack(visits_[tables_[head] * visits + number]).query_block
        at += tables_[head] * blocks.bounds.shape[1]
        partial = jnp.maximum(number - masked_[at], 0) + words_[at]
        return tables_[head], jnp.minimum(partial, partials - 1), 0, 0

    def column_block(head, number, visits_, tables_, *_):  # noqa: ANN001, ANN002, ANN202
        return 0, unpack(visits_[tables_[head] * visits + number]).key_block

    # Where the last query block has no live block, its one visit is of kind `NONE`.
    last = jnp.asarray(blocks.bounds)[:, -1]
    listed = jnp.max(jnp.maximum(last[:, 2], last[:, 0] + 1))
    computed = heads * visits * block_q * block_k
    output = pl.pallas_call(
        functools.partial(_kernel, visits=visits, scale=1 / math.sqrt(width)),
        out_shape=jax.ShapeDtypeStruct((len(row_position), heads * lanes), query.dtype),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=(heads, listed),
            in_specs=[
                pl.BlockSpec((block_q, lanes), query_block),
                pl.BlockSpec((block_k, lanes), key_block),
                pl.BlockSpec((block_k, lanes), key_block),
                pl.BlockSpec((block_q, 1), row_block),
                pl.BlockSpec((None, None, words, block_q), word_block),
                pl.BlockSpec((2, block_k), column_block),
            ],
            out_specs=pl.BlockSpec((block_q, lanes), query_block),
            scratch_shapes=[
                pltpu.VMEM((block_q, LANES), jnp.float32),
                pltpu.VMEM((block_q, LANES), jnp.float32),
                pltpu.VMEM((block_q, lanes), jnp.float32),
            ],
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=4 * computed * lanes,
            transcendentals=computed,
            bytes_accessed=2 * query.dtype.itemsize * heads * lanes * (rows + visits * block_k),
        ),
        interpret=interpret or False,
        name="pruned_attention",
    )(
        blocks.visits.reshape(-1),
        table_of_head,
        blocks.bounds[..., 1].reshape(-1),
        blocks.bounds[..., 3].reshape(-1),
        _flat(query, block_q, lanes),
        _flat(key, block_k, lanes),
        _flat(value, block_k, lanes),
        row_position,
        blocks.row_words,
        column_data,
    )
    return output.reshape(-1, heads, lanes)[:rows, :, :width]


def _flat(array: Float[Array, "n heads d"], block: int, lanes: int) -> Array:
    """[rows, heads * lanes], rows in whole blocks: a head's block is then a rectangle."""
    pad = (0, -len(array) % block), (0, 0), (0, lanes - array.shape[2])
    return jnp.pad(array, pad).reshape(-1, array.shape[1] * lanes)


def _kernel(
    visits_ref,  # noqa: ANN001
    tables_ref,  # noqa: ANN001
    _masked_ref,  # noqa: ANN001
    _words_ref,  # noqa: ANN001
    query_ref,  # noqa: ANN001
    key_ref,  # noqa: ANN001
    value_ref,  # noqa: ANN001
    position_ref,  # noqa: ANN001
    words_ref,  # noqa: ANN001
    column_ref,  # noqa: ANN001
    output_ref,  # noqa: ANN001
    top_ref,  # noqa: ANN001
    total_ref,  # noqa: ANN001
    summed_ref,  # noqa: ANN001
    *,
    visits: int,
    scale: float,
) -> None:
    """One visit of one head. `top` and `total` hold the same number in every lane."""
    head, number = pl.program_id(0), pl.program_id(1)
    visit = unpack(visits_ref[tables_ref[head] * visits + number])

    @pl.when(visit.first)
    def _start() -> None:
        top_ref[...] = jnp.full_like(top_ref, -jnp.inf)
        total_ref[...] = jnp.zeros_like(total_ref)
        summed_ref[...] = jnp.zeros_like(summed_ref)

    def take_block(partial: bool) -> None:
        scores = scale * _dot(query_ref[...], key_ref[...], 1)
        if partial:
            scores = jnp.where(_allowed(position_ref, words_ref, column_ref), scores, -jnp.inf)
        top = jnp.maximum(top_ref[...], scores.max(1, keepdims=True))
        base = jnp.where(top == -jnp.inf, 0.0, top)
        weights = jnp.exp(scores - _wide(base, scores.shape[1]))
        kept = jnp.exp(top_ref[...] - base)
        top_ref[...] = top
        total_ref[...] = total_ref[...] * kept + weights.sum(1, keepdims=True)
        product = _dot(weights.astype(value_ref.dtype), value_ref[...], 0)
        summed_ref[...] = summed_ref[...] * _wide(kept, summed_ref.shape[1]) + product

    pl.when(visit.kind == FULL)(functools.partial(take_block, partial=False))
    pl.when(visit.kind == PARTIAL)(functools.partial(take_block, partial=True))

    @pl.when(visit.last)
    def _finish() -> None:
        total = jnp.where(total_ref[...] == 0, 1.0, total_ref[...])
        output = summed_ref[...] / _wide(total, summed_ref.shape[1])
        output_ref[...] = output.astype(output_ref.dtype)


def _dot(left: Array, right: Array, contracted: int) -> Array:
    """left [m, n] times right, over axis `contracted` of right; float32."""
    precise = left.dtype == jnp.float32
    return jax.lax.dot_general(
        left,
        right,
        (((1,), (contracted,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if precise else None,
        preferred_element_type=jnp.float32,
    )


def _wide(lanes: Array, width: int) -> Array:
    """Repeat the 128 equal lanes to a width."""
    return jnp.tile(lanes, (1, width // LANES))


def _allowed(position_ref, words_ref, column_ref) -> Array:  # noqa: ANN001
    """The edges of a partial block: bool [block_q, block_k]."""
    shape = position_ref.shape[0], column_ref.shape[1]
    position, class_ = column_ref[0:1, :], column_ref[1:2, :]
    words = _upright(words_ref[0:1, :], shape)
    for number in range(1, words_ref.shape[0]):
        words = jnp.where(
            (class_ >> 5) == number, _upright(words_ref[number : number + 1, :], shape), words
        )
    bit = jnp.broadcast_to(class_ & 31, shape)
    allowed = (jax.lax.shift_right_logical(words, bit) & 1) == 1
    return allowed & (position_ref[...] >= position)


def _upright(row: Array, shape: tuple[int, int]) -> Array:
    """A row [1, n] as the columns of a matrix [n, m]."""
    return jnp.broadcast_to(row, shape[::-1]).T
