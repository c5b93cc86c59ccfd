"""Block maps: which blocks of the attention square hold an allowed edge.

The square of query rows x key rows is divided into blocks. Positions are ascending and edges depend
on groups and causality alone, so a block's kind follows from the groups in it and, per group, the
first and last position: no array over rows x rows is ever made::

               key blocks            f  full: every edge allowed, nothing is masked
    query   0  p . . . . .           p  partial: some edges allowed
    blocks  1  f p . . . .           .  dead: no edge allowed; never fetched, never computed
            2  f . p . . .
            3  f . . p . .           (frames that may read the system text and themselves)
            4  f . . . p .

Groups that no table tells apart are one *class*, and the classes in a key block are numbered from
0. Which of them a row of a partial block may read is a set of bits, nearly always one word: a
kernel masks the block by `row_words >> column_class & 1` and the positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int32

NONE, FULL, PARTIAL = 0, 1, 2
"""Kinds of visit. `NONE` computes nothing: it stands for a query block without a live block."""

KEY_SHIFT, QUERY_SHIFT = 4, 18
MOST_KEY_BLOCKS, MOST_QUERY_BLOCKS = 1 << (QUERY_SHIFT - KEY_SHIFT), 1 << (31 - QUERY_SHIFT)

HostOrDevice = Array | np.ndarray
Leaf = Any
"""An array on host or device; JAX also puts shapes, shardings or axes in its place."""


class Visit(NamedTuple):
    """What packed visits say (see `BlockMap.visits`): arrays of their shape and library."""

    query_block: Any
    key_block: Any
    kind: Any
    first: Any
    last: Any


def unpack(packed: HostOrDevice) -> Visit:
    """The fields of packed visits; works on numpy and JAX values, inside kernels too."""
    return Visit(
        packed >> QUERY_SHIFT,
        (packed >> KEY_SHIFT) & (MOST_KEY_BLOCKS - 1),
        (packed >> 2) & 3,
        (packed & 1) == 1,
        (packed & 2) == 2,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BlockMap:
    """The live blocks of one layer's attention, made by `build.block_map`.

    Tables are those that differ: heads with equal tables share one. Query and key rows are padded
    to whole blocks. `stack_maps` adds a leading axis of layers to every array, for `jax.lax.scan`.

    visits: int32 [tables, visits], the live blocks in the order of their query blocks, full ones
        before partial ones. Bit 0: the first visit of its query block; bit 1: the last; bits 2-3:
        the kind; then 14 bits key block and 13 bits query block. A query block without live blocks
        has one visit of kind `NONE`; so has the end, where another table has more visits.
    bounds: int32 [tables, query_blocks, 4], indices into `visits`: the first full block, the first
        partial one, and the end; then the index of the first partial one in `row_words`.
    table_of_head: int32 [heads or 1].
    row_words: int32 [tables, partials or 1, words, block_q], of each partial visit: the classes
        that each query row may read, class c as bit `c % 32` of word `c // 32`.
    column_class: int32 [columns], the class of each key row, numbered within its block.
    order: int32 [tables, query_blocks], query blocks by their number of visits, most first.
    long: int32 [], so many of them at most have visits out of proportion (`build.LONG`).
    edges: int32 [tables, query_blocks], allowed edges.
    causal: int32 [query_blocks], key blocks that causality alone would leave.
    queries, keys: rows without padding.
    block_q, block_k: rows of a block.
    """

    visits: Leaf
    bounds: Leaf
    table_of_head: Leaf
    row_words: Leaf
    column_class: Leaf
    order: Leaf
    long: Leaf
    edges: Leaf
    causal: Leaf
    queries: int = field(metadata={"static": True})
    keys: int = field(metadata={"static": True})
    block_q: int = field(metadata={"static": True})
    block_k: int = field(metadata={"static": True})

    # The counts are sums over the head axis of the mask, which has one entry where heads agree.

    @property
    def kept_blocks(self) -> int:
        """Blocks that are computed."""
        return int(self._per_head(self.bounds[..., 2] - self.bounds[..., 0]))

    @property
    def partial_blocks(self) -> int:
        """Computed blocks that need masking."""
        return int(self._per_head(self.bounds[..., 2] - self.bounds[..., 1]))

    @property
    def causal_blocks(self) -> int:
        """Blocks that causality alone would leave."""
        heads = self.table_of_head.shape[-1]
        return heads * int(np.asarray(self.causal).sum(dtype=np.int64))

    @property
    def kept_edges(self) -> int:
        """Allowed edges, causality included."""
        return int(self._per_head(self.edges))

    def _per_head(self, counts: HostOrDevice) -> np.int64:
        """The sum over heads of an array [*layers, tables, query_blocks]."""
        totals = np.asarray(counts).sum(-1, dtype=np.int64)
        return np.take_along_axis(totals, np.asarray(self.table_of_head), -1).sum()


def stack_maps(maps: Sequence[BlockMap]) -> BlockMap:
    """Layers' block maps of the same rows as one, with a leading axis of layers.

    Raises:
        ValueError: the maps are of other rows or blocks.
    """
    tables = max(len(each.visits) for each in maps)
    heads = max(len(each.table_of_head) for each in maps)
    visits = max(each.visits.shape[1] for each in maps)
    partials = max(each.row_words.shape[1] for each in maps)
    words = max(each.row_words.shape[2] for each in maps)
    same = [_same_size(each, tables, heads, visits, partials, words) for each in maps]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *same)


def padded_map(one: BlockMap, *, tables: int, visits: int, partials: int) -> BlockMap:
    """The same map with at least so many tables (copies), visits and words of partial visits."""
    return _same_size(
        one,
        max(tables, len(one.visits)),
        len(one.table_of_head),
        max(visits, one.visits.shape[1]),
        max(partials, one.row_words.shape[1]),
        one.row_words.shape[2],
    )


def _same_size(
    one: BlockMap, tables: int, heads: int, visits: int, partials: int, words: int
) -> BlockMap:
    """The same map with more tables and heads (copies), and idle visits and words."""
    table = np.minimum(np.arange(tables), len(one.visits) - 1)
    more = (0, 0), (0, partials - one.row_words.shape[1]), (0, words - one.row_words.shape[2])
    return replace(
        one,
        visits=np.stack([longer(np.asarray(one.visits[each]), visits) for each in table]),
        bounds=np.asarray(one.bounds)[table],
        table_of_head=np.resize(np.asarray(one.table_of_head), heads),
        row_words=np.pad(np.asarray(one.row_words)[table], (*more, (0, 0))),
        order=np.asarray(one.order)[table],
        edges=np.asarray(one.edges)[table],
    )


def longer(visits: Int32[np.ndarray, " visits"], length: int) -> Int32[np.ndarray, " length"]:
    """Append visits of kind `NONE` at the last visit's blocks, so that nothing more is fetched."""
    idle = visits[-1] & ~np.int32(0b1111)
    return np.concatenate([visits, np.full(length - len(visits), idle, np.int32)])
