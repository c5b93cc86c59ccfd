"""Planning an exact sweep that never recomputes what a knockout cannot change.

A knockout into target rows R in layers [s, e] leaves every hidden state before layer s as it was,
and later changes only rows >= min(R), because attention is causal. So one baseline prefill keeps
hidden states, keys and values of every layer; each window starts at layer s from the kept states,
computes only the rows from min(R) on, and reads the kept keys and values of the rows before::

      layer   0        s                L-1
      row 0   [ kept ][ kept keys and values ]
      min(R)  [ kept ][ computed per window  ]  <- in the last layer only the final row is
      n-1     [ kept ][                      ]     computed beyond its keys and values

Plain NumPy and integers: nothing here touches a device.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from flowjax.edges import Knockout, causal_edges, cut_table
from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout
from flowjax.models.decoder import DecoderConfig
from flowjax.padding import LENGTH_STEP, bucket_rows, round_up
from flowjax.patches import Patch
from flowjax.sweeps.cost import Cost, chunked_edges

ROWS_PER_BATCH = 128
"""Rows that fill a device: below it, weights are read faster than rows are multiplied."""


@dataclass(frozen=True)
class Footprint:
    """What a knockout can change: rows from `first_row` on, after layer `start` has run."""

    start: int
    first_row: int


def footprint(layout: TokenLayout, knockout: Knockout | Patch) -> Footprint:
    """Where a knockout begins: its first layer, and the first row that loses an edge.

    A patch begins in its first layer, at its first position.

    Raises:
        FlowjaxError: a group that does not exist, or a knockout that removes no edge.
    """
    if isinstance(knockout, Patch):
        return Footprint(min(knockout.layers or (0,)), int(knockout.positions(layout)[0]))
    cut = cut_table(layout, knockout)
    _, first_source = np.unique(layout.cell, return_index=True)
    # A row of target cell t loses an edge once a source of one of t's cut cells is at or before it.
    from_row = np.where(cut, first_source[None, :], layout.length).min(axis=1)
    rows = np.flatnonzero(np.arange(layout.length) >= from_row[layout.cell])
    return Footprint(min(knockout.layers), int(rows[0]))


def dense_footprint(allowed: Bool[np.ndarray, "layers heads n n"]) -> Footprint:
    """The footprint of a dense mask: bool [layers, heads or 1, n, n], target x source.

    Raises:
        FlowjaxError: the mask removes no edge.
    """
    cut = ~allowed & np.tri(allowed.shape[-1], dtype=bool)
    layers, _, rows, _ = np.nonzero(cut)
    if not len(layers):
        raise FlowjaxError("the dense mask removes no edge")
    return Footprint(int(layers.min()), int(rows.min()))


@dataclass(frozen=True)
class Batch:
    """Windows computed together by one call of a compiled function.

    knockouts: indices into the sweep's knockouts.
    size: windows the compiled function takes; those beyond `knockouts` are padding.
    start: the layer that all of them start from, the earliest any of them needs.
    rows: consecutive rows computed, ending at the prompt's last position or after it.
    first_row: position of the first of them.
    prefix: kept positions that the compiled function reads; those from `first_row` on are ignored.
    """

    knockouts: tuple[int, ...]
    size: int
    start: int
    rows: int
    first_row: int
    prefix: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """What the compiled function depends on."""
        return self.size, self.rows, self.prefix


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of a sweep; a multiply-add counts two.

    naive: one full forward per knockout, attention over the full square.
    baseline: the one prefill that `planned` contains.
    planned: what the plan executes, padding included.
    bound: affected rows x remaining layers, each row reading only what causality lets it.
    bound_baseline: the part of it that is the prefill.
    """

    naive: int
    baseline: int
    planned: int
    bound: int
    bound_baseline: int

    @property
    def windows(self) -> int:
        """What the plan executes beside the prefill."""
        return self.planned - self.baseline

    @property
    def bound_windows(self) -> int:
        """The bound without its prefill."""
        return self.bound - self.bound_baseline


@dataclass(frozen=True)
class Plan:
    """How a sweep over one prompt is computed.

    length: positions, padding included.
    bytes: peak device memory of kept states and of the prefill or the largest batch beside them;
        parameters are not counted.
    """

    batches: tuple[Batch, ...]
    length: int
    flops: Flops
    bytes: int

    @property
    def shapes(self) -> int:
        """Compiled functions that the batches need; the prefill is one more."""
        return len({batch.shape for batch in self.batches})


def plan_sweep(
    layout_length: int,
    footprints: Sequence[Footprint],
    config: DecoderConfig,
    *,
    value_bytes: int = 4,
    budget: int | None = None,
    kernel: bool = False,
    platform: str = "cpu",
    multiple: int = 1,
) -> Plan:
    """Group knockouts into batches.

    Windows with the same number of rows (after rounding) are sorted by their start layer and cut
    into batches of about `ROWS_PER_BATCH` rows. A window in a batch that starts earlier than it
    must recomputes the baseline's own values until its cut begins, which is exact.

    Args:
        layout_length: positions of the prompt.
        footprints: one per knockout.
        config: the decoder.
        value_bytes: bytes of one value of a hidden state.
        budget: device bytes for everything but parameters; None for no limit.
        kernel: whether the decoder attends by a kernel.
        platform: where it runs (`jax.default_backend`); compilers allot different memory.
        multiple: batch sizes are multiples of this (devices along the mesh's `data` axis).

    Raises:
        FlowjaxError: the budget is below what one window needs.
    """
    cost = Cost(config, value_bytes, kernel, platform)
    length = round_up(layout_length, LENGTH_STEP)
    by_rows: dict[int, list[int]] = defaultdict(list)
    for index, foot in enumerate(footprints):
        by_rows[bucket_rows(layout_length - foot.first_row)].append(index)
    batches: list[Batch] = []
    prefill_bytes = cost.prefill_bytes(length)
    for rows, members in sorted(by_rows.items()):
        first_row = max(0, layout_length - rows)
        prefix = min(length, round_up(first_row, 2 * LENGTH_STEP))
        members.sort(key=lambda index: (footprints[index].start, index))
        most = max(1, ROWS_PER_BATCH // rows)
        if budget is not None:
            room = budget - cost.kept_bytes(length)
            fitting = (
                count
                for count in range(max(most, multiple), 0, -1)
                if cost.batch_bytes(count, rows, prefix) <= room
            )
            most = next(fitting, 0)
            if most < multiple or room < prefill_bytes:
                need = max(prefill_bytes, cost.batch_bytes(multiple, rows, prefix))
                raise FlowjaxError(
                    f"memory budget {budget:,} bytes: this sweep needs at least "
                    f"{cost.kept_bytes(length) + need:,} beside the parameters"
                )
        most = max(multiple, most // multiple * multiple)
        for offset in range(0, len(members), most):
            chosen = members[offset : offset + most]
            batches.append(
                Batch(
                    knockouts=tuple(chosen),
                    size=min(most, round_up(bucket_rows(len(chosen)), multiple)),
                    start=footprints[chosen[0]].start,
                    rows=rows,
                    first_row=first_row,
                    prefix=prefix,
                )
            )
    return Plan(
        batches=tuple(batches),
        length=length,
        flops=_flops(cost, layout_length, length, footprints, batches),
        bytes=cost.kept_bytes(length)
        + max([prefill_bytes, *(cost.batch_bytes(b.size, b.rows, b.prefix) for b in batches)]),
    )


def _flops(
    cost: Cost,
    real: int,
    padded: int,
    footprints: Sequence[Footprint],
    batches: Sequence[Batch],
) -> Flops:
    bound = sum(
        cost.window(
            foot.start,
            real - foot.first_row,
            causal_edges(foot.first_row, real),
            real,
        )
        for foot in footprints
    )
    windows = sum(
        batch.size
        * cost.window(
            batch.start,
            batch.rows,
            chunked_edges(batch.rows, batch.prefix),
            batch.rows + batch.prefix,
        )
        for batch in batches
    )
    baseline = cost.prefill(padded, chunked_edges(padded, 0))
    bound_baseline = cost.prefill(real, causal_edges(0, real))
    return Flops(
        naive=len(footprints) * cost.prefill(real, real * real),
        baseline=baseline,
        planned=baseline + windows,
        bound=bound_baseline + bound,
        bound_baseline=bound_baseline,
    )
