"""Pruned attention for Hopper GPUs, with Pallas' Mosaic GPU backend; `thread_block` is the kernel.

float32 is refused: tensor cores would round it to 10 bits.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int

from flowjax.kernels.pruned_attention.blocks import BlockMap
from flowjax.kernels.pruned_attention.gpu_softmax import COMPUTING, ROWS, Softmax
from flowjax.kernels.pruned_attention.hopper import Machine
from flowjax.kernels.pruned_attention.thread_block import ThreadBlock, room

MOST_WIDTH = 256
MOST_WORDS = 4
MULTIPROCESSORS = 132
"""Of an H100 or H200, where JAX does not say how many there are."""
CACHED_BYTES = 32 << 20
"""Keys and values that the second-level cache (50 MB) keeps while their heads' rows attend."""
UNREAD = 1 << 30
"""Position of padding columns; rows are before it."""
CLASS_BITS = 8
COUNTED = jax.__version_info__ >= (0, 11)
"""Whether work is dealt by a counter; JAX 0.10 has no references within `custom_vmap`."""


def refusal(
    query: Float[Array, "q heads d"], key: Float[Array, "k kv_heads d"], blocks: BlockMap
) -> str | None:
    """Why the kernel cannot serve these arrays and this map; None if it can."""
    width, words = query.shape[2], blocks.row_words.shape[-2]
    if query.dtype != jnp.bfloat16 or key.dtype != jnp.bfloat16:
        return (
            f"dtypes {query.dtype} and {key.dtype}: give bfloat16 "
            "(tensor cores would round float32 to 10 bits)"
        )
    if width > MOST_WIDTH:
        return f"head size {width}: at most {MOST_WIDTH}"
    if blocks.block_q != COMPUTING * ROWS or blocks.block_k not in (64, 128):
        return (
            f"blocks of {blocks.block_q} x {blocks.block_k} rows: "
            f"give {COMPUTING * ROWS} x 64 or {COMPUTING * ROWS} x 128"
        )
    if words > MOST_WORDS:
        return f"more than {32 * MOST_WORDS} classes of source groups in a key block"
    if room(_padded_width(width), blocks.block_k, words).slots < 2:
        return (
            f"head size {width} with key blocks of {blocks.block_k} rows does not fit in shared "
            "memory; take key blocks of 64 rows"
        )
    return None


@functools.partial(jax.jit, static_argnames=("interpret", "workers"))
def attention(
    query: Float[Array, "q heads d"],
    key: Float[Array, "k kv_heads d"],
    value: Float[Array, "k kv_heads d"],
    query_position: Int[Array, " q"],
    key_position: Int[Array, " k"],
    blocks: BlockMap,
    *,
    interpret: object = None,
    workers: int | None = None,
) -> Float[Array, "q heads d"]:
    """Attention over the live blocks of a block map; see `pruned_attention`.

    interpret: an `InterpretGPUParams`: run on the CPU, as a simulation of a GPU's threads, memory
        and barriers.
    workers: thread blocks; None for one on each multiprocessor.
    """
    rows, heads, width = query.shape
    tiles = blocks.bounds.shape[1]
    padded, words = _padded_width(width), blocks.row_words.shape[2]
    simulated = interpret is not None
    space = room(padded, blocks.block_k, words)
    softmax = Softmax(
        machine=Machine(simulated),
        counted=COUNTED and not simulated,
        block_k=blocks.block_k,
        width=padded,
        words=words,
        slots=space.slots,
        scale=math.log2(math.e) / math.sqrt(width),
    )
    kernel = ThreadBlock(
        softmax=softmax,
        room=space,
        workers=min(workers or _multiprocessors(), heads * tiles),
        heads=heads,
        tiles=tiles,
        together=_together(key, heads),
        heads_per_kv_head=heads // key.shape[1],
        heads_share_table=len(blocks.table_of_head) == 1,
    )
    # Copies read zeros after an array's end and write nothing there, in steps of 8 rows.
    step_q, step_k = (blocks.block_q, blocks.block_k) if simulated else (8, 8)
    call = plgpu.kernel(
        kernel.body,
        out_type=[jax.ShapeDtypeStruct((-(-rows // step_q) * step_q, heads, padded), query.dtype)],
        scratch_types=kernel.scratch(query.dtype),
        grid=(kernel.workers,),
        grid_names=("worker",),
        num_threads=COMPUTING + 1,
        thread_name="warpgroup",
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpret,
        kernel_name="pruned_attention",
    )

    # Calls of a batch go one after the other, as each has a counter of its own.
    @jax.custom_batching.sequential_vmap
    def run(*arrays: Array) -> Array:
        counter = jnp.zeros((1,), jnp.int32)
        return call(*arrays, jax.new_ref(counter) if softmax.counted else counter)[0]

    output = run(
        _pad_width(_pad_rows(query, step_q), padded),
        _pad_width(_pad_rows(key, step_k), padded),
        _pad_width(_pad_rows(value, step_k), padded),
        _rows(query_position, blocks),
        _columns(key_position, blocks),
        *(jnp.asarray(each) for each in (blocks.visits, blocks.bounds, blocks.row_words)),
        *(jnp.asarray(each) for each in (blocks.table_of_head, blocks.order)),
        jnp.asarray(blocks.long).reshape(1),
    )
    return output[:rows, :, :width]


def _multiprocessors() -> int:
    return getattr(jax.devices()[0], "core_count", None) or MULTIPROCESSORS


def _together(key: Float[Array, "k kv_heads d"], heads: int) -> int:
    """Heads that attend at a time, so that their keys and values stay cached."""
    rows, kv_heads, width = key.shape
    fit = CACHED_BYTES // (2 * rows * width * key.dtype.itemsize)
    return min(heads, max(fit, 1) * (heads // kv_heads))


def _rows(position: Int[Array, " q"], blocks: BlockMap) -> Int[Array, " rows"]:
    """What a row compares with columns: see `_columns`."""
    last = UNREAD - 1 if blocks.row_words.shape[2] == 1 else (UNREAD >> CLASS_BITS) - 1
    position = jnp.minimum(position, last).astype(jnp.int32)
    if blocks.row_words.shape[2] > 1:
        position = position << CLASS_BITS | ((1 << CLASS_BITS) - 1)
    return _pad_rows(position, blocks.block_q)


def _columns(position: Int[Array, " k"], blocks: BlockMap) -> Int[Array, "sides columns"]:
    """The class and the position of every key row.

    With one word of classes, the class as a bit of it, and the position. With more, both in one
    number, which takes fewer registers: `position << 8 | class`.
    """
    class_ = jnp.asarray(blocks.column_class).astype(jnp.int32)
    position = _pad_rows(position.astype(jnp.int32), blocks.block_k, UNREAD)
    if blocks.row_words.shape[2] == 1:
        return jnp.stack([jnp.left_shift(1, class_), jnp.minimum(position, UNREAD)])
    return (jnp.minimum(position, UNREAD >> CLASS_BITS) << CLASS_BITS | class_)[None]


def _padded_width(width: int) -> int:
    """Lanes of a head: copies swizzle 64 or 32 of them."""
    return -(-width // 32) * 32 if width > 64 else 64


def _pad_rows(array: Array, block: int, fill: int = 0) -> Array:
    pad = [(0, -len(array) % block)] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, pad, constant_values=fill)


def _pad_width(array: Array, width: int) -> Array:
    return jnp.pad(array, ((0, 0), (0, 0), (0, width - array.shape[2])))
