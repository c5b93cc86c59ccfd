"""What a thread block of the GPU kernel does: one stays on each multiprocessor.

An *item* is one head's query block; a shared counter deals items, long ones first. Of a thread
block's three warpgroups the last one copies: for each item it fetches the query block, then walks
its visits and fetches the live key and value blocks through the tensor memory accelerator into a
ring of slots, and the next item's while this one is computed. The other two compute, 64 query rows
each, and take turns: while one uses the tensor cores, the other computes its softmax. Full blocks
are computed without masks; for a partial block the copying warpgroup also fetches its words,
classes and positions (512 bytes each).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array

from flowjax.kernels.pruned_attention.blocks import PARTIAL, unpack
from flowjax.kernels.pruned_attention.gpu_softmax import COMPUTING, ROWS, Softmax, sides
from flowjax.kernels.pruned_attention.hopper import Ref

SHARED_BYTES = 227 * 1024
MOST_SLOTS = 4
PLAN = 8
"""Numbers kept of an item for the computing warpgroups, of which 4 are used."""


class Room(NamedTuple):
    """How much of what fits in shared memory: query blocks, and slots for key blocks."""

    queries: int
    slots: int


def room(width: int, block_k: int, words: int) -> Room:
    """Two query blocks and at most 4 slots; one query block where two leave no room for 2 slots."""
    query = COMPUTING * ROWS * (2 * width + 4)
    slot = 2 * 2 * block_k * width + 4 * (sides(words) * block_k + words * COMPUTING * ROWS)
    left = SHARED_BYTES - 2048
    queries = 2 if (left - 2 * query) // slot >= 2 else 1
    return Room(queries, min(MOST_SLOTS, (left - queries * query) // slot))


class Arrays(NamedTuple):
    """What is read from global memory, and where the output goes; see `mosaic_gpu.attention`."""

    query: Ref
    key: Ref
    value: Ref
    row: Ref
    column: Ref
    visits: Ref
    bounds: Ref
    row_words: Ref
    table_of_head: Ref
    order: Ref
    long: Ref
    counter: Ref
    output: Ref


@dataclass(frozen=True)
class ThreadBlock:
    """The kernel for one set of shapes.

    workers: thread blocks.
    tiles: query blocks of a head.
    together: heads whose query blocks are dealt in turn, after the long ones of all.
    """

    softmax: Softmax
    room: Room
    workers: int
    heads: int
    tiles: int
    together: int
    heads_per_kv_head: int
    heads_share_table: bool

    def scratch(self, dtype: jnp.dtype) -> dict[str, Any]:
        """Shared memory and barriers of a thread block.

        A slot holds a key block, its value block, and what masking a partial block needs. `*_full`
        says that copies are there (`query_full`: and an item's numbers), `*_free` that both
        computing warpgroups are done with them, `turn` that one hands over the tensor cores.
        """
        across = 64 if self.softmax.width % 64 == 0 else 32
        tiled = plgpu.TilingTransform((8, across)), plgpu.SwizzleTransform(2 * across)
        queries, slots = self.room

        def rows_of(count: int, rows: int) -> object:
            return plgpu.SMEM((count, rows, self.softmax.width), dtype, transforms=tiled)

        def barriers(count: int, arrivals: int = 1) -> object:
            return plgpu.Barrier(num_barriers=count, num_arrivals=arrivals)

        return {
            "query_smem": rows_of(queries * COMPUTING, ROWS),
            "key_smem": rows_of(slots, self.softmax.block_k),
            "value_smem": rows_of(slots, self.softmax.block_k),
            "row_smem": plgpu.SMEM((queries, COMPUTING * ROWS), jnp.int32),
            "column_smem": plgpu.SMEM(
                (slots, sides(self.softmax.words), self.softmax.block_k), jnp.int32
            ),
            "word_smem": plgpu.SMEM((slots, self.softmax.words, COMPUTING * ROWS), jnp.int32),
            "plan_smem": plgpu.SMEM((queries * PLAN,), jnp.int32),
            "cell_smem": plgpu.SMEM((1,), jnp.int32),
            "query_full": barriers(queries, COMPUTING + 1),
            "query_free": barriers(queries, COMPUTING),
            "key_full": barriers(slots),
            "value_full": barriers(slots),
            "mask_full": barriers(slots, 1 + self.softmax.words),
            "key_free": barriers(slots, COMPUTING),
            "value_free": barriers(slots, COMPUTING),
            "turn": plgpu.Barrier(num_arrivals=COMPUTING),
        }

    def body(self, *arrays: Ref, **scratch: Ref) -> None:
        """A thread block, given `Arrays`."""
        given, warpgroup = Arrays(*arrays), jax.lax.axis_index("warpgroup")

        @pl.when(warpgroup == COMPUTING)
        def _copy() -> None:
            plgpu.set_max_registers(40, action="decrease")
            self._copy(given, scratch)

        @pl.when(warpgroup < COMPUTING)
        def _compute() -> None:
            plgpu.set_max_registers(232, action="increase")
            self._compute(given.output, warpgroup, scratch)

    def _copy(self, given: Arrays, scratch: dict[str, Ref]) -> None:
        """Fetch item after item."""

        def copy_item(state: tuple[Array, ...]) -> tuple[Array, ...]:
            """Fetch an item, of which the first visit is step `base`."""
            turn, number, base = state
            head, rank = self._place(number, given.long)
            table = given.table_of_head[0 if self.heads_share_table else head]
            tile = given.order[table, rank]
            first, masked, end = (given.bounds[table, tile, each] for each in (0, 1, 2))
            self._announce(turn, (head, tile, masked - first, end - first), scratch)
            buffer = self._buffer(turn)
            full, start = scratch["query_full"].at[buffer], tile * (COMPUTING * ROWS)
            for each in range(COMPUTING):
                plgpu.copy_gmem_to_smem(
                    given.query.at[pl.ds(start + each * ROWS, ROWS), head],
                    scratch["query_smem"].at[buffer * COMPUTING + each],
                    full,
                )
            plgpu.copy_gmem_to_smem(
                given.row.at[pl.ds(start, COMPUTING * ROWS)], scratch["row_smem"].at[buffer], full
            )
            kv_head = jax.lax.div(head, jnp.int32(self.heads_per_kv_head))

            @pl.loop(first, end)
            def _fetch(visit: Array) -> None:
                words = given.bounds[table, tile, 3] + visit - masked
                self._copy_visit(given, scratch, base + visit - first, kv_head, table, visit, words)

            return turn + 1, self._deal(turn + 1, given.counter, scratch), base + end - first

        start = jnp.int32(0), jax.lax.axis_index("worker"), jnp.int32(0)
        turns, _, steps = _while_not_negative(copy_item, start)
        self._announce(turns, (jnp.int32(-1),), scratch)
        for _ in range(COMPUTING + 1):  # in the place of copies
            plgpu.barrier_arrive(scratch["query_full"].at[self._buffer(turns)])
        self._drain(turns, steps, scratch)

    def _copy_visit(
        self,
        given: Arrays,
        scratch: dict[str, Ref],
        step: Array,
        kv_head: Array,
        table: Array,
        visit: Array,
        words: Array,
    ) -> None:
        """Fetch a visit's blocks into the step's slot; `words`: its place in `row_words`."""
        slot = jax.lax.rem(step, jnp.int32(self.room.slots))
        at = unpack(given.visits[table, visit])
        columns = pl.ds(at.key_block * self.softmax.block_k, self.softmax.block_k)
        self._wait_free("key_free", step, scratch)
        plgpu.copy_gmem_to_smem(
            given.key.at[columns, kv_head],
            scratch["key_smem"].at[slot],
            scratch["key_full"].at[slot],
        )

        @pl.when(at.kind == PARTIAL)
        def _copy_mask() -> None:
            full = scratch["mask_full"].at[slot]
            plgpu.copy_gmem_to_smem(
                given.column.at[:, columns], scratch["column_smem"].at[slot], full
            )
            for word in range(self.softmax.words):
                plgpu.copy_gmem_to_smem(
                    given.row_words.at[table, words, word],
                    scratch["word_smem"].at[slot, word],
                    full,
                )

        self._wait_free("value_free", step, scratch)
        plgpu.copy_gmem_to_smem(
            given.value.at[columns, kv_head],
            scratch["value_smem"].at[slot],
            scratch["value_full"].at[slot],
        )

    def _compute(self, output: Ref, warpgroup: Array, scratch: dict[str, Ref]) -> None:
        """Attend item after item."""

        def planned(turn: Array, which: int) -> Array:
            """A number of a turn's item; see `_announce`."""
            return scratch["plan_smem"][self._buffer(turn) * PLAN + which]

        def head_of(turn: Array) -> Array:
            """Of a turn's item, once it is there; negative if there is none."""
            plgpu.barrier_wait(scratch["query_full"].at[self._buffer(turn)])
            return planned(turn, 0)

        def compute_item(state: tuple[Array, ...]) -> tuple[Array, ...]:
            turn, _, base = state
            buffer = self._buffer(turn)
            held = scratch["query_smem"].at[buffer * COMPUTING + warpgroup]
            position = scratch["row_smem"].at[buffer, pl.ds(warpgroup * ROWS, ROWS)]
            end = base + planned(turn, 3)
            limits = base, base + planned(turn, 2), end
            held[...] = self.softmax.attend(held, position, limits, scratch).astype(held.dtype)
            plgpu.commit_smem()
            # Read late: no register is to hold them while rows attend.
            head, tile = planned(turn, 0), planned(turn, 1)
            rows = pl.ds(tile * (COMPUTING * ROWS) + warpgroup * ROWS, ROWS)
            plgpu.copy_smem_to_gmem(held, output.at[rows, head])
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
            plgpu.barrier_arrive(scratch["query_free"].at[buffer])
            return turn + 1, head_of(turn + 1), end

        first = jnp.int32(0)
        _while_not_negative(compute_item, (first, head_of(first), first))
        plgpu.wait_smem_to_gmem(0)

    def _buffer(self, turn: Array) -> Array:
        """Which query block of shared memory is a turn's."""
        return jax.lax.rem(turn, jnp.int32(self.room.queries))

    def _place(self, number: Array, long: Ref) -> tuple[Array, Array]:
        """The head of an item, and the rank of its query block among those of the head.

        The long ones of all heads come first, then the others of `together` heads at a time.
        """
        heads, together = jnp.int32(self.heads), jnp.int32(self.together)
        first = long[0]
        others = jnp.maximum(self.tiles - first, 1)
        rest = number - heads * first
        group = jax.lax.div(jnp.maximum(rest, 0), together * others)
        within = jnp.maximum(rest, 0) - group * together * others
        size = jnp.minimum(together, heads - group * together)
        head = jnp.where(
            rest < 0, jax.lax.rem(number, heads), group * together + jax.lax.rem(within, size)
        )
        rank = jnp.where(rest < 0, jax.lax.div(number, heads), first + jax.lax.div(within, size))
        return head, rank

    def _deal(self, turn: Array, counter: Ref, scratch: dict[str, Ref]) -> Array:
        """The number of the next item; negative if there is none. Without a counter in turn."""
        worker, items = jax.lax.axis_index("worker"), self.heads * self.tiles
        if not self.softmax.counted:
            number = worker + turn * self.workers
        else:
            number = self.softmax.machine.fetch_add(counter, scratch["cell_smem"]) + self.workers
        return jnp.where(number < items, number, -1)

    def _announce(self, turn: Array, plan: tuple[Array, ...], scratch: dict[str, Ref]) -> None:
        """Say the computing warpgroups an item, once the query block before it is done with."""
        buffer = self._buffer(turn)

        @pl.when(turn >= self.room.queries)
        def _wait() -> None:
            plgpu.barrier_wait(scratch["query_free"].at[buffer])

        for number, each in enumerate(plan):
            scratch["plan_smem"][buffer * PLAN + number] = each

    def _wait_free(self, name: str, step: Array, scratch: dict[str, Ref]) -> None:
        """Until a step's slot was read in the step that had it before."""

        @pl.when(step >= self.room.slots)
        def _wait() -> None:
            slot = jax.lax.rem(step, jnp.int32(self.room.slots))
            plgpu.barrier_wait(scratch[name].at[slot])

    def _drain(self, turns: Array, steps: Array, scratch: dict[str, Ref]) -> None:
        """Wait for all that is still to become free."""
        queries, slots = self.room

        @pl.loop(jnp.maximum(0, steps - slots), steps)
        def _drain_slots(step: Array) -> None:
            slot = jax.lax.rem(step, jnp.int32(slots))
            plgpu.barrier_wait(scratch["key_free"].at[slot])
            plgpu.barrier_wait(scratch["value_free"].at[slot])

        @pl.loop(jnp.maximum(0, turns - queries + 1), turns)
        def _drain_queries(turn: Array) -> None:
            plgpu.barrier_wait(scratch["query_free"].at[self._buffer(turn)])


def _while_not_negative(
    body: Callable[[tuple[Array, ...]], tuple[Array, ...]], state: tuple[Array, ...]
) -> tuple[Array, ...]:
    """Repeat until the state's second number is negative."""
    return jax.lax.while_loop(lambda state: state[1] >= 0, body, state)
