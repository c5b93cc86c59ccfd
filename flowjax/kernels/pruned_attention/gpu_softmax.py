"""The softmax of a computing warpgroup's 64 query rows over their live key blocks."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array

from flowjax.kernels.pruned_attention.hopper import Machine, Ref

COMPUTING = 2
"""Computing warpgroups in a thread block."""
ROWS = 64
"""Query rows of a computing warpgroup: one wgmma."""
LOWEST = -1e30
"""Where the highest score of a row starts; a finite number needs no care about infinities."""


def sides(words: int) -> int:
    """Numbers per key row: its class and its position, which more words hold in one."""
    return 2 if words == 1 else 1


@dataclass(frozen=True)
class Softmax:
    """Online softmax over slots that hold key and value blocks.

    counted: whether a counter deals items, or each thread block takes every so many-th.
    words: of classes, for each row of a partial block.
    slots: in the ring; a step's is `step % slots`.
    scale: of scores, in base 2: weights are `exp2(scale * score - top)`.
    """

    machine: Machine
    counted: bool
    block_k: int
    width: int
    words: int
    slots: int
    scale: float

    def attend(
        self,
        query: Ref,
        position: Ref,
        limits: tuple[Array, Array, Array],
        scratch: dict[str, Ref],
    ) -> Array:
        """The softmax over all visits of 64 query rows: float32 [64, width].

        limits: the item's first step, its first partial one, and its end.
        """
        warpgroup = jax.lax.axis_index("warpgroup")
        place, layout = self.machine.place, plgpu.Layout.WGMMA
        state = (
            place(jnp.full((ROWS,), LOWEST, jnp.float32), layout.reduce(1)),
            place(jnp.zeros((ROWS,), jnp.float32), layout.reduce(1)),
            place(jnp.zeros((ROWS, self.width), jnp.float32), layout),
        )

        def take_turn() -> None:
            plgpu.barrier_arrive(scratch["turn"])
            plgpu.barrier_wait(scratch["turn"])

        def visit(step: Array, state: tuple[Array, ...], partial: bool) -> tuple[Array, ...]:
            top, total, summed = state
            slot = jax.lax.rem(step, jnp.int32(self.slots))
            key, value = scratch["key_smem"].at[slot], scratch["value_smem"].at[slot]
            plgpu.barrier_wait(scratch["key_full"].at[slot])
            scores = self.machine.scores(query, key, take_turn)
            if partial:
                scores = jnp.where(self._allowed(position, slot, scratch), scores, -jnp.inf)
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

        first, masked, end = limits
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
        return summed * _across(1.0 / jnp.where(total == 0.0, 1.0, total), summed.shape)

    def _allowed(self, position: Ref, slot: Array, scratch: dict[str, Ref]) -> Array:
        """The edges of a partial block: bool [64, block_k]."""
        plgpu.barrier_wait(scratch["mask_full"].at[slot])
        read, layout = self.machine.read, plgpu.Layout.WGMMA
        shape = ROWS, self.block_k
        rows = pl.ds(jax.lax.axis_index("warpgroup") * ROWS, ROWS)
        column = [
            _down(read(scratch["column_smem"], (slot, each, slice(None)), layout.reduce(0)), shape)
            for each in range(sides(self.words))
        ]
        words = [
            _across(read(scratch["word_smem"], (slot, word, rows), layout.reduce(1)), shape)
            for word in range(self.words)
        ]
        if self.words == 1:
            may_read = (words[0] & column[0]) != 0
        else:
            chosen = words[0]
            for number in range(1, self.words):
                chosen = jnp.where((column[0] >> 5) & 7 == number, words[number], chosen)
            may_read = (jax.lax.shift_right_logical(chosen, column[0] & 31) & 1) == 1
        own = _across(read(position, (slice(None),), layout.reduce(1)), shape)
        return may_read & (own >= column[-1])


def _across(value: Array, shape: tuple[int, ...]) -> Array:
    """One number per row, in every column."""
    return jax.lax.broadcast_in_dim(value, shape, (0,))


def _down(value: Array, shape: tuple[int, ...]) -> Array:
    """One number per column, in every row."""
    return jax.lax.broadcast_in_dim(value, shape, (1,))
