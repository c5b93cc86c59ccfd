"""Curves of a sweep: per edge, the mean relative change at every layer."""

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from flowjax.errors import FlowjaxError
from flowjax.report.arrays import by_sample, distinct
from flowjax.report.statistics import Interval, bootstrap_mean
from flowjax.report.table import LAYER, Table, judged

SHOWN = 20
"""Edges in a printed summary, those with the largest change first."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One edge of an edge set.

    layer: 1-based centre of each window.
    mean, low, high: relative change of the base answer's probability in percent, with its 95%
        bootstrap interval over samples.
    samples: how many.
    """

    edge_set: str
    edge: str
    head: int
    layer: Int[np.ndarray, " layers"]
    mean: Float[np.ndarray, " layers"]
    low: Float[np.ndarray, " layers"]
    high: Float[np.ndarray, " layers"]
    samples: int

    @property
    def label(self) -> str:
        """The edge, and its head where it is cut in one only."""
        return self.edge if self.head < 0 else f"{self.edge} head {self.head}"


@dataclass(frozen=True)
class Strongest:
    """The window (its centre from 1) of an edge whose mean change is largest in size."""

    edge_set: str
    edge: str
    layer: int
    interval: Interval


def curves(table: pa.Table) -> Iterator[Curve]:
    """Every edge's curve, in the order in which edges first occur.

    Raises:
        FlowjaxError: the table has no rows, a sample lacks some windows, or a change is not a
            finite number.
    """
    if not table.num_rows:
        raise FlowjaxError("the results hold no rows to draw")
    keys = ("edge_set", "edge", "head")
    for key in distinct(table, *keys):
        of_edge = functools.reduce(
            operator.and_, (pc.field(name) == value for name, value in zip(keys, key, strict=True))
        )
        chosen = table.filter(of_edge).sort_by("sample_id")
        try:
            found = by_sample(chosen, "relative_change", "centre")
        except FlowjaxError as error:
            raise FlowjaxError(f"edge {key[1]!r}: {error}") from None
        mean, low, high = bootstrap_mean(found.values)
        layer = np.array(found.axes[0]) + 1
        edge_set, edge, head = key
        yield Curve(edge_set, edge, head, layer, mean, low, high, len(found.samples))


def strongest(table: pa.Table) -> list[Strongest]:
    """The strongest window of every edge."""
    rows = []
    for curve in curves(table):
        at = int(np.argmax(np.abs(curve.mean)))
        ends = float(curve.mean[at]), float(curve.low[at]), float(curve.high[at])
        interval = Interval(curve.samples, *ends)
        rows.append(Strongest(curve.edge_set, curve.label, int(curve.layer[at]), interval))
    return rows


def strongest_table(title: str, table: pa.Table) -> list[Table | str]:
    """What is printed of the edges whose windows change most."""
    rows = sorted(strongest(table), key=lambda row: -abs(row.interval.mean))
    cells = [
        [row.edge_set, row.edge, str(row.layer), *judged(row.interval, "+.1f")]
        for row in rows[:SHOWN]
    ]
    numbers = [LAYER, "change %", "95% interval", "excludes 0"]
    more = [f"... and {len(rows) - SHOWN} more edges"] if len(rows) > SHOWN else []
    return [Table(title, ["edge set", "edge cut"], numbers, cells), *more]
