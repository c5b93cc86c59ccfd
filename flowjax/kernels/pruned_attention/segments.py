"""Rows of one class in one block, and the edges between such segments: numpy on the host."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Segments(NamedTuple):
    """The rows of a class in a block, as one entry; sorted by block, then class.

    block, class_: int [s]; first, last: int [s], lowest and highest position.
    order: int [rows], row numbers, segment after segment; start: int [s + 1], where in it.
    """

    block: Int[np.ndarray, " s"]
    class_: Int[np.ndarray, " s"]
    first: Int[np.ndarray, " s"]
    last: Int[np.ndarray, " s"]
    order: Int[np.ndarray, " rows"]
    start: Int[np.ndarray, " s_plus_1"]


def segments(
    class_: Int[np.ndarray, " rows"], position: Int[np.ndarray, " rows"], block: int
) -> Segments:
    """The segments of rows with ascending positions, `block` rows a block."""
    classes = int(class_.max()) + 1
    key = np.arange(len(class_)) // block * classes + class_
    order = np.arange(len(class_))
    if np.any(key[1:] < key[:-1]):
        order = np.argsort(key, kind="stable")
        key = key[order]
    start = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    stop = np.append(start[1:], len(key))
    return Segments(
        key[start] // classes,
        key[start] % classes,
        position[order[start]],
        position[order[stop - 1]],
        order,
        np.append(start, len(key)),
    )


def distinct(values: Bool[np.ndarray, "items bits"]) -> tuple[np.ndarray, np.ndarray]:
    """Items that differ: (the first item of each kind, the kind of every item), in item order."""
    packed = np.packbits(values, axis=1)
    rows = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}")[:, 0]
    _, first, kind = np.unique(rows, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return np.sort(first), rank[kind]


def merge(
    table: Bool[np.ndarray, "tables g g"],
    targets: Int[np.ndarray, " q"],
    sources: Int[np.ndarray, " k"],
) -> tuple[Bool[np.ndarray, "tables r c"], Int[np.ndarray, " q"], Int[np.ndarray, " k"]]:
    """Merge the groups that no table tells apart.

    Args:
        table: target group x source group.
        targets, sources: the group of every query and key row.

    Returns:
        The table over classes of target groups and classes of source groups, numbered by group,
        and the class of every query and key row.
    """
    groups = table.shape[-1]
    of_target = np.flatnonzero(np.bincount(targets, minlength=groups))
    of_source = np.flatnonzero(np.bincount(sources, minlength=groups))
    small = table[:, of_target[:, None], of_source[None, :]]
    rows, row_kind = distinct(small.transpose(1, 0, 2).reshape(len(of_target), -1))
    columns, column_kind = distinct(small.transpose(2, 0, 1).reshape(len(of_source), -1))
    row_class, column_class = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
    row_class[of_target], column_class[of_source] = row_kind, column_kind
    return small[:, rows[:, None], columns[None, :]], row_class[targets], column_class[sources]


def edges_between(
    targets: Segments,
    sources: Segments,
    target_position: Int[np.ndarray, " q"],
    source_position: Int[np.ndarray, " k"],
    pairs: tuple[np.ndarray, np.ndarray],
) -> Int[np.ndarray, " pairs"]:
    """Causal edges (target position >= source position) of each pair of segments.

    Args:
        targets, sources: the segments.
        target_position, source_position: of all rows.
        pairs: indices of target segments and of source segments.
    """
    target, source = pairs
    rows = np.diff(targets.start)[target]
    pair = np.repeat(np.arange(len(target)), rows)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(rows) - rows, rows)
    read_by = target_position[targets.order[targets.start[target][pair] + within]]
    stride = int(max(target_position[-1], source_position[-1])) + 1
    of_source = np.repeat(np.arange(len(sources.block)), np.diff(sources.start))
    keys = of_source * stride + source_position[sources.order]
    up_to = np.searchsorted(keys, source[pair] * stride + read_by, side="right")
    return np.bincount(pair, up_to - sources.start[source][pair], len(target)).astype(np.int64)
