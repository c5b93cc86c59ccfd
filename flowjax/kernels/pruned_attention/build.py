"""Building block maps on the host, at the size of blocks: see `blocks` for what they are."""

import numpy as np
from jaxtyping import Bool, Int, Int32

from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention.blocks import (
    FULL,
    KEY_SHIFT,
    MOST_KEY_BLOCKS,
    MOST_QUERY_BLOCKS,
    PARTIAL,
    QUERY_SHIFT,
    BlockMap,
    Visit,
    longer,
    unpack,
)
from flowjax.kernels.pruned_attention.segments import (
    Segments,
    distinct,
    edges_between,
    merge,
    segments,
)

LONG = 33
"""A query block with more than this part of a head's visits is long: its visits would outlast the
others' if four heads went to 132 multiprocessors at a time, so that no head may start it late."""


def block_map(
    mask_group: Int[np.ndarray, " n"],
    allowed: Bool[np.ndarray, "heads g g"],
    query_position: Int[np.ndarray, " q"],
    key_position: Int[np.ndarray, " k"],
    *,
    block_q: int,
    block_k: int,
) -> BlockMap:
    """Build the block map of one layer, on the host, as numpy arrays.

    Args:
        mask_group: the group of each position, as in `EdgeMask`.
        allowed: one layer's table, target group x source group; one entry where heads agree.
        query_position, key_position: of the rows, absolute, ascending. Positions past the end
            of `mask_group` mark rows that are not there: no row reads them.
        block_q, block_k: rows of a block.

    Raises:
        FlowjaxError: no rows, positions that are negative or not ascending, or more blocks than a
            map can hold.
    """
    _check(query_position, key_position, block_q, block_k)
    heads = len(allowed)
    tables, table_of_head = distinct(allowed.reshape(heads, -1))
    end = len(mask_group) - 1
    table, row_class, column_class = merge(
        allowed[tables],
        mask_group[np.minimum(query_position, end)],
        mask_group[np.minimum(key_position, end)],
    )
    rows = segments(row_class, query_position, block_q)
    columns = segments(column_class, key_position, block_k)
    ragged = len(key_position) % block_k > 0
    parts = []
    for one in table:
        visits, bounds, edges = _visits(one, rows, columns, query_position, key_position, ragged)
        words = _row_words(one, row_class, columns, unpack(visits), block_q)
        parts.append((visits, bounds, edges, words))
    visits, bounds, edges, words = zip(*parts, strict=True)
    order, long = zip(*map(_order, bounds), strict=True)
    last_of_block = (
        np.minimum(np.arange(block_q, len(query_position) + block_q, block_q), len(query_position))
        - 1
    )
    reach = np.searchsorted(key_position[::block_k], query_position[last_of_block], side="right")
    return BlockMap(
        visits=np.stack([longer(each, max(map(len, visits))) for each in visits]),
        bounds=np.stack(bounds),
        table_of_head=table_of_head.astype(np.int32),
        row_words=np.stack([_grown(each, max(1, *map(len, words))) for each in words]),
        column_class=_grown(_local_class(columns), -(-len(key_position) // block_k) * block_k),
        order=np.stack(order),
        long=np.int32(max(long)),
        edges=np.stack(edges),
        causal=reach.astype(np.int32),
        queries=len(query_position),
        keys=len(key_position),
        block_q=block_q,
        block_k=block_k,
    )


def _check(
    query_position: Int[np.ndarray, " q"],
    key_position: Int[np.ndarray, " k"],
    block_q: int,
    block_k: int,
) -> None:
    for name, position, block, most in (
        ("query", query_position, block_q, MOST_QUERY_BLOCKS),
        ("key", key_position, block_k, MOST_KEY_BLOCKS),
    ):
        if block < 1:
            raise FlowjaxError(f"{name} block size {block}: give at least 1 row")
        if len(position) == 0:
            raise FlowjaxError(f"{name} positions: there are none; attention needs at least one")
        if position[0] < 0 or np.any(position[1:] < position[:-1]):
            raise FlowjaxError(f"{name} positions: they must be ascending and not negative")
        if len(position) > block * most:
            raise FlowjaxError(
                f"{name} block size {block}: {len(position)} rows make more than {most} blocks; "
                f"take blocks of at least {-(-len(position) // most)} rows"
            )


def _visits(
    table: Bool[np.ndarray, "r c"],
    rows: Segments,
    columns: Segments,
    query_position: Int[np.ndarray, " q"],
    key_position: Int[np.ndarray, " k"],
    ragged: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Visits, bounds and edge counts of one table."""
    open_ = table[rows.class_[:, None], columns.class_[None, :]]
    any_ = open_ & (rows.last[:, None] >= columns.first[None, :])
    every = open_ & (rows.first[:, None] >= columns.last[None, :])
    kept = _over_blocks(np.logical_or, any_, rows, columns)
    full = _over_blocks(np.logical_and, every, rows, columns)
    if ragged:
        full[:, -1] = False
    visits, bounds = _listed(full, kept & ~full)

    sizes, column_sizes = np.diff(rows.start), np.diff(columns.start)
    of_segment = sizes * (every @ column_sizes)
    mixed_rows, mixed_columns = np.nonzero(any_ & ~every)
    some = edges_between(rows, columns, query_position, key_position, (mixed_rows, mixed_columns))
    of_segment = of_segment + np.bincount(mixed_rows, some, len(sizes)).astype(np.int64)
    edges = np.bincount(rows.block, of_segment, len(bounds)).astype(np.int32)
    return visits, bounds, edges


def _over_blocks(
    ufunc: np.ufunc, values: Bool[np.ndarray, "s t"], rows: Segments, columns: Segments
) -> Bool[np.ndarray, "query_blocks key_blocks"]:
    """Reduce segments x segments to blocks x blocks."""
    row_starts = np.searchsorted(rows.block, np.arange(rows.block[-1] + 1))
    column_starts = np.searchsorted(columns.block, np.arange(columns.block[-1] + 1))
    return ufunc.reduceat(ufunc.reduceat(values, row_starts, axis=0), column_starts, axis=1)


def _listed(
    full: Bool[np.ndarray, "query_blocks key_blocks"],
    partial: Bool[np.ndarray, "query_blocks key_blocks"],
) -> tuple[np.ndarray, np.ndarray]:
    """The packed visits of live blocks, full ones first in each query block, and their bounds."""
    fulls, partials = full.sum(1), partial.sum(1)
    visits_of = np.maximum(fulls + partials, 1)
    start = np.cumsum(visits_of) - visits_of
    ends = start + fulls + partials
    bounds = np.stack([start, start + fulls, ends, np.cumsum(partials) - partials], 1)
    visits = (np.repeat(np.arange(len(full)), visits_of) << QUERY_SHIFT).astype(np.int32)
    for blocks, counts, begin, kind in (
        (full, fulls, bounds[:, 0], FULL),
        (partial, partials, bounds[:, 1], PARTIAL),
    ):
        query_block, key_block = np.nonzero(blocks)
        rank = np.arange(len(query_block)) - (np.cumsum(counts) - counts)[query_block]
        visits[begin[query_block] + rank] |= (key_block << KEY_SHIFT | kind << 2).astype(np.int32)
    visits[start] |= 1
    visits[start + visits_of - 1] |= 2
    return visits, bounds.astype(np.int32)


def _order(bounds: Int32[np.ndarray, "query_blocks 4"]) -> tuple[Int32[np.ndarray, " n"], int]:
    """Query blocks by falling number of visits, later ones first; how many of them are long."""
    visits = bounds[:, 2] - bounds[:, 0]
    order = np.lexsort((-np.arange(len(visits)), -visits)).astype(np.int32)
    return order, int(np.count_nonzero(visits * LONG > visits.sum()))


def _local_class(columns: Segments) -> Int32[np.ndarray, " k"]:
    """The class of every key row, numbered within its block."""
    local = np.empty(len(columns.order), np.int32)
    local[columns.order] = np.repeat(_rank_in_block(columns), np.diff(columns.start))
    return local


def _rank_in_block(segments_: Segments) -> Int[np.ndarray, " s"]:
    """The number of each segment within its block."""
    block = segments_.block
    return np.arange(len(block)) - np.searchsorted(block, block)


def _row_words(
    table: Bool[np.ndarray, "r c"],
    row_class: Int[np.ndarray, " q"],
    columns: Segments,
    visits: Visit,
    block_q: int,
) -> Int32[np.ndarray, "partials words block_q"]:
    """For each partial visit, the classes that each row may read, as bits."""
    rank = _rank_in_block(columns)
    bits = np.where(table[:, columns.class_], np.int64(1) << (rank & 31), 0)
    word_start = np.flatnonzero(rank & 31 == 0)
    of_class = np.zeros((len(table), columns.block[-1] + 1, rank.max() // 32 + 1), np.int64)
    of_class[:, columns.block[word_start], rank[word_start] // 32] = np.add.reduceat(
        bits, word_start, axis=1
    )
    partial = visits.kind == PARTIAL
    row = visits.query_block[partial][:, None] * block_q + np.arange(block_q)
    words = of_class[
        row_class[np.minimum(row, len(row_class) - 1)], visits.key_block[partial][:, None]
    ]
    words[row >= len(row_class)] = 0
    return np.ascontiguousarray(words.astype(np.uint32).view(np.int32).transpose(0, 2, 1))


def _grown(array: np.ndarray, length: int) -> np.ndarray:
    """Append zeros along the first axis."""
    return np.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1))
