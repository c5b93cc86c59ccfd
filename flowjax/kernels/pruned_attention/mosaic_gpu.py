"""Pruned attention for Hopper GPUs, with Pallas' Mosaic GPU backend.

One thread block per head and query block, of three warpgroups. The last one copies: it walks the
query block's visits and fetches the live key and value blocks through the tensor memory accelerator
into a ring of slots. The other two compute, 64 query rows each, and take turns: while one uses the
tensor cores, the other computes its softmax. Full blocks are computed without masks; for a partial
block the copying warpgroup also fetches its words and packed columns (512 bytes each).
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int

from flowjax.kernels.pruned_attention.blocks import BlockMap, unpack
from flowjax.kernels.pruned_attention.hopper import Machine, Ref

COMPUTING = 2
"""Computing warpgroups in a thread block."""
ROWS = 64
"""Query rows of a computing warpgroup: one wgmma."""
MOST_WIDTH = 256
MOST_WORDS = 4
SHARED_BYTES = 227 * 1024
LOWEST = -1e30
"""Where the highest score of a row starts; a finite number needs no care about infinities."""
CLASS_BITS = 8
LAST_POSITION = (1 << (31 - CLASS_BITS)) - 1


def refusal(
    query: Float[Array, "q heads d"], key: Float[Array, "k kv_heads d"], blocks: BlockMap
) -> str | None:
    """Why the kernel cannot serve these arrays and this map; None if it can."""
    width, words = query.shape[2], blocks.row_words.shape[2]
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
    if _slots(width, blocks.block_k, words) < 2:
        return (
            f"head size {width} with key blocks of {blocks.block_k} rows does not fit in shared "
            "memory; take key blocks of 64 rows"
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
    interpret: object = None,
) -> Float[Array, "q heads d"]:
    """Attention over the live blocks of a block map; see `pruned_attention`.

    interpret: an `InterpretGPUParams`: run on the CPU, as a simulation of a GPU's threads, memory
        and barriers.
    """
    rows, heads, width = query.shape
    block_q, block_k = blocks.block_q, blocks.block_k
    padded = _padded_width(width)
    words = blocks.row_words.shape[2]
    kernel = _Kernel(
        machine=Machine(simulated=interpret is not None),
        heads_per_kv_head=heads // key.shape[1],
        heads_share_table=len(blocks.table_of_head) == 1,
        block_k=block_k,
        width=padded,
        words=words,
        slots=_slots(width, block_k, words),
        scale=math.log2(math.e) / math.sqrt(width),
    )
    tiles = blocks.bounds.shape[1]
    row_key = _pack(query_position, (1 << CLASS_BITS) - 1, LAST_POSITION - 1)
    column_position = _pad_rows(key_position, block_k, LAST_POSITION)
    column_key = _pack(column_position, jnp.asarray(blocks.column_class), LAST_POSITION)
    call = plgpu.kernel(
        kernel.body,
        out_type=jax.ShapeDtypeStruct((tiles * block_q, heads, padded), query.dtype),
        scratch_types=kernel.scratch(query.dtype),
        grid=(heads, tiles),
        grid_names=("head", "tile"),
        num_threads=COMPUTING + 1,
        thread_name="warpgroup",
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpret,
        kernel_name="pruned_attention",
    )
    output = call(
        _pad_width(_pad_rows(query, block_q), padded),
        _pad_width(_pad_rows(key, block_k), padded),
        _pad_width(_pad_rows(value, block_k), padded),
        _pad_rows(row_key, block_q),
        column_key,
        blocks.visits,
        blocks.bounds,
        blocks.row_words,
        blocks.table_of_head,
    )
    return output[:rows, :, :width]


def _slots(width: int, block_k: int, words: int) -> int:
    """Slots of the ring that fit in shared memory, at most 4."""
    width = _padded_width(width)
    rows = 2 * COMPUTING * ROWS * width
    slot = 2 * 2 * block_k * width + 4 * (block_k + words * COMPUTING * ROWS)
    return min(4, (SHARED_BYTES - rows - 2048) // slot)


def _padded_width(width: int) -> int:
    return -(-width // 64) * 64


def _pad_rows(array: Array, block: int, fill: int = 0) -> Array:
    pad = [(0, -len(array) % block)] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, pad, constant_values=fill)


def _pad_width(array: Array, width: int) -> Array:
    return jnp.pad(array, ((0, 0), (0, 0), (0, width - array.shape[2])))


def _pack(position: Int[Array, " n"], low: Array | int, last: int) -> Int[Array, " n"]:
    """`position << 8 | low`: a row reads a column, as far as positions go, if its key is larger."""
    return (jnp.minimum(position, last).astype(jnp.int32) << CLASS_BITS) | low


@dataclass(frozen=True)
class _Kernel:
    """The kernel for one set of shapes.

    scale: of scores, in base 2: weights are `exp2(scale * score - top)`.
    """

    machine: Machine
    heads_per_kv_head: int
    heads_share_table: bool
    block_k: int
    width: int
    words: int
    slots: int
    scale: float

    def scratch(self, dtype: jnp.dtype) -> dict[str, Any]:
        """Shared memory and barriers of a thread block.

        A slot holds a key block, its value block, and what masking a partial block needs. `*_full`
        says that copies into a slot are there, `*_free` that both computing warpgroups have read
        it, `turn` that a warpgroup hands over the tensor cores.
        """
        tiled = plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128)

        def slot_of(rows: int, count: int) -> object:
            return plgpu.SMEM((count, rows, self.width), dtype, transforms=tiled)

        barriers = functools.partial(plgpu.Barrier, num_barriers=self.slots)
        return {
            "query_smem": slot_of(ROWS, COMPUTING),
            "key_smem": slot_of(self.block_k, self.slots),
            "value_smem": slot_of(self.block_k, self.slots),
            "column_smem": plgpu.SMEM((self.slots, self.block_k), jnp.int32),
            "word_smem": plgpu.SMEM((self.slots, self.words, COMPUTING * ROWS), jnp.int32),
            "query_full": plgpu.Barrier(num_barriers=COMPUTING),
            "key_full": barriers(),
            "value_full": barriers(),
            "mask_full": barriers(num_arrivals=1 + self.words),
            "key_free": barriers(num_arrivals=COMPUTING),
            "value_free": barriers(num_arrivals=COMPUTING),
            "turn": plgpu.Barrier(num_arrivals=COMPUTING),
        }

    def body(
        self,
        query: Ref,
        key: Ref,
        value: Ref,
        row_key: Ref,
        column_key: Ref,
        visits: Ref,
        bounds: Ref,
        row_words: Ref,
        table_of_head: Ref,
        output: Ref,
        **scratch: Ref,
    ) -> None:
        """A thread block. Later tiles, which causality makes longer, start first."""
        head = jax.lax.axis_index("head")
        tile = bounds.shape[1] - 1 - jax.lax.axis_index("tile")
        warpgroup = jax.lax.axis_index("warpgroup")
        table = table_of_head[0 if self.heads_share_table else head]
        first, masked = bounds[table, tile, 0], bounds[table, tile, 1]
        end, first_words = bounds[table, tile, 2], bounds[table, tile, 3]

        @pl.when(warpgroup == COMPUTING)
        def _copy() -> None:
            plgpu.set_max_registers(40, action="decrease")
            kv_head = jax.lax.div(head, jnp.int32(self.heads_per_kv_head))

            @pl.loop(first, end)
            def _fetch(number: Array) -> None:
                step = number - first
                slot = jax.lax.rem(step, jnp.int32(self.slots))
                rows = pl.ds(unpack(visits[table, number]).key_block * self.block_k, self.block_k)
                again = step >= self.slots

                @pl.when(again)
                def _wait_key() -> None:
                    plgpu.barrier_wait(scratch["key_free"].at[slot])

                plgpu.copy_gmem_to_smem(
                    key.at[rows, kv_head],
                    scratch["key_smem"].at[slot],
                    scratch["key_full"].at[slot],
                )

                @pl.when(number >= masked)
                def _fetch_mask() -> None:
                    full = scratch["mask_full"].at[slot]
                    plgpu.copy_gmem_to_smem(
                        column_key.at[rows], scratch["column_smem"].at[slot], full
                    )
                    for word in range(self.words):
                        plgpu.copy_gmem_to_smem(
                            row_words.at[table, first_words + number - masked, word],
                            scratch["word_smem"].at[slot, word],
                            full,
                        )

                @pl.when(again)
                def _wait_value() -> None:
                    plgpu.barrier_wait(scratch["value_free"].at[slot])

                plgpu.copy_gmem_to_smem(
                    value.at[rows, kv_head],
                    scratch["value_smem"].at[slot],
                    scratch["value_full"].at[slot],
                )

            @pl.loop(jnp.maximum(first, end - self.slots), end)
            def _drain(number: Array) -> None:
                slot = jax.lax.rem(number - first, jnp.int32(self.slots))
                plgpu.barrier_wait(scratch["key_free"].at[slot])
                plgpu.barrier_wait(scratch["value_free"].at[slot])

        @pl.when(warpgroup < COMPUTING)
        def _compute() -> None:
            plgpu.set_max_registers(232, action="increase")
            start = tile * (COMPUTING * ROWS) + warpgroup * ROWS
            rows = pl.ds(start, ROWS)
            held = scratch["query_smem"].at[warpgroup]
            arrived = scratch["query_full"].at[warpgroup]
            plgpu.copy_gmem_to_smem(query.at[rows, head], held, arrived)
            own_key = self.machine.read(row_key, (rows,), plgpu.Layout.WGMMA.reduce(1))
            plgpu.barrier_wait(arrived)
            result = self._attend(held, own_key, warpgroup, first, masked, end, scratch)
            held[...] = result.astype(held.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(held, output.at[rows, head])
            plgpu.wait_smem_to_gmem(0)

    def _attend(
        self,
        query: Ref,
        own_key: Array,
        warpgroup: Array,
        first: Array,
        masked: Array,
        end: Array,
        scratch: dict[str, Ref],
    ) -> Array:
        """The softmax over all visits of 64 query rows: float32 [64, width]."""
        place, layout = self.machine.place, plgpu.Layout.WGMMA
        state = (
            place(jnp.full((ROWS,), LOWEST, jnp.float32), layout.reduce(1)),
            place(jnp.zeros((ROWS,), jnp.float32), layout.reduce(1)),
            place(jnp.zeros((ROWS, self.width), jnp.float32), layout),
        )

        def take_turn() -> None:
            plgpu.barrier_arrive(scratch["turn"])
            plgpu.barrier_wait(scratch["turn"])

        def visit(number: Array, state: tuple[Array, ...], partial: bool) -> tuple[Array, ...]:
            top, total, summed = state
            slot = jax.lax.rem(number - first, jnp.int32(self.slots))
            key, value = scratch["key_smem"].at[slot], scratch["value_smem"].at[slot]
            plgpu.barrier_wait(scratch["key_full"].at[slot])
            scores = self.machine.scores(query, key, take_turn)
            if partial:
                scores = jnp.where(
                    self._allowed(own_key, warpgroup, slot, scratch), scores, -jnp.inf
                )
            plgpu.barrier_arrive(scratch["key_free"].at[slot])

            higher = jnp.maximum(top, scores.max(axis=1) * self.scale)
            kept = jnp.exp2(top - higher)
            weights = jnp.exp2(scores * self.scale - _across(higher, scores.shape))
            total = total * kept + weights.sum(axis=1)
            summed = summed * _across(kept, summed.shape)
            rounded = weights.astype(value.dtype)
            if not self.machine.simulated:
                # Nothing of the softmax may move past the turn into the tensor cores' time.
                higher, total, summed, rounded = jax.lax.optimization_barrier(
                    (higher, total, summed, rounded)
                )
            plgpu.barrier_arrive(scratch["turn"])
            plgpu.barrier_wait(scratch["value_full"].at[slot])
            plgpu.barrier_wait(scratch["turn"])
            summed = self.machine.add_product(summed, rounded, value)
            plgpu.barrier_arrive(scratch["value_free"].at[slot])
            return higher, total, summed

        pl.when(warpgroup == 1)(take_turn)
        state = jax.lax.fori_loop(first, masked, functools.partial(visit, partial=False), state)
        # Under a condition: ptxas would else let it read registers that the first loop sets.
        state = jax.lax.cond(
            masked < end,
            lambda state: jax.lax.fori_loop(
                masked, end, functools.partial(visit, partial=True), state
            ),
            lambda state: state,
            state,
        )
        pl.when(warpgroup == 0)(take_turn)
        _, total, summed = state
        return summed / _across(jnp.where(total == 0.0, 1.0, total), summed.shape)

    def _allowed(
        self, own_key: Array, warpgroup: Array, slot: Array, scratch: dict[str, Ref]
    ) -> Array:
        """The edges of a partial block: bool [64, block_k]."""
        plgpu.barrier_wait(scratch["mask_full"].at[slot])
        read, layout = self.machine.read, plgpu.Layout.WGMMA
        shape = ROWS, self.block_k
        column = _down(read(scratch["column_smem"], (slot, slice(None)), layout.reduce(0)), shape)
        rows = pl.ds(warpgroup * ROWS, ROWS)
        words = [
            _across(read(scratch["word_smem"], (slot, word, rows), layout.reduce(1)), shape)
            for word in range(self.words)
        ]
        chosen = words[0]
        for number in range(1, self.words):
            chosen = jnp.where((column >> 5) & 7 == number, words[number], chosen)
        bit = jax.lax.shift_right_logical(chosen, column & 31) & 1
        return (bit == 1) & (_across(own_key, shape) >= column)


def _across(value: Array, shape: tuple[int, ...]) -> Array:
    """One number per row, in every column."""
    return jax.lax.broadcast_in_dim(value, shape, (0,))


def _down(value: Array, shape: tuple[int, ...]) -> Array:
    """One number per column, in every row."""
    return jax.lax.broadcast_in_dim(value, shape, (1,))
