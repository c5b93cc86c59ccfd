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
from flowjax.report.statistics import Interval, bootstrap_mean


@dataclass(frozen=True)
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
    """The window of an edge whose mean change is largest in size."""

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
    keys = ["edge_set", "edge", "head"]
    for row in table.select(keys).group_by(keys, use_threads=False).aggregate([]).to_pylist():
        of_edge = functools.reduce(
            operator.and_, (pc.field(name) == value for name, value in row.items())
        )
        chosen = table.filter(of_edge).sort_by(
            [("sample_id", "ascending"), ("centre", "ascending")]
        )
        layers = np.unique(chosen["centre"].to_numpy())
        values = chosen["relative_change"].to_numpy()
        if (
            len(values) % len(layers)
            or (chosen["centre"].to_numpy().reshape(-1, len(layers)) != layers).any()
        ):
            raise FlowjaxError(f"edge {row['edge']!r}: a sample has no result for some window")
        values = values.reshape(-1, len(layers))
        for sample, layer in np.argwhere(~np.isfinite(values))[:1]:
            name = chosen["sample_id"][int(sample) * len(layers)].as_py()
            raise FlowjaxError(
                f"edge {row['edge']!r}: sample {name!r} has the relative change "
                f"{values[sample, layer]} at layer {layers[layer] + 1}; it must be a finite number"
            )
        mean, low, high = bootstrap_mean(values)
        yield Curve(
            row["edge_set"],
            row["edge"],
            row["head"],
            layers + 1,
            mean,
            low,
            high,
            len(values),
        )


def strongest(table: pa.Table) -> list[Strongest]:
    """The strongest window of every edge."""
    rows = []
    for curve in curves(table):
        at = int(np.argmax(np.abs(curve.mean)))
        ends = float(curve.mean[at]), float(curve.low[at]), float(curve.high[at])
        interval = Interval(curve.samples, *ends)
        rows.append(Strongest(curve.edge_set, curve.label, int(curve.layer[at]), interval))
    return rows
