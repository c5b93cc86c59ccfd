"""Curves of a sweep: per edge, the mean relative change at every layer."""

import functools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from flowjax.errors import FlowjaxError
from flowjax.report.arrays import BySample, beside, by_sample, distinct
from flowjax.report.sign_flips import adjusted_p
from flowjax.report.statistics import Interval, bootstrap_mean, mean_interval
from flowjax.report.table import JUDGED, LAYER, Table, judged, tested_note

SHOWN = 20
"""Edges in a printed summary, those with the largest change first."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One edge of an edge set.

    found: relative change of the base answer's probability in percent, or whether the answer is
        right, by sample and layer.
    mean, low, high: over samples, with the pointwise 95% interval, a share in percent.
    """

    edge_set: str
    edge: str
    head: int
    found: BySample
    mean: Float[np.ndarray, " layers"]
    low: Float[np.ndarray, " layers"]
    high: Float[np.ndarray, " layers"]

    @property
    def layer(self) -> Int[np.ndarray, " layers"]:
        """1-based centre of each window."""
        return np.array(self.found.axes[0]) + 1

    @property
    def samples(self) -> int:
        """How many."""
        return len(self.found.samples)

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


def curves(table: pa.Table, column: str = "relative_change") -> Iterator[Curve]:
    """Every edge's curve, in the order in which edges first occur.

    column: of numbers, or of answers that are right or wrong: then of their share in percent, with
        a score interval.

    Raises:
        FlowjaxError: the table has no rows, a sample lacks some windows, or a change is not a
            finite number.
    """
    if not table.num_rows:
        raise FlowjaxError("the results hold no rows to draw")
    found: dict[tuple[str, str, int], BySample] = {}
    keys = ("edge_set", "edge", "head")
    for key in distinct(table, *keys):
        of_edge = functools.reduce(
            operator.and_, (pc.field(name) == value for name, value in zip(keys, key, strict=True))
        )
        try:
            found[key] = by_sample(table.filter(of_edge), column, "centre")
        except FlowjaxError as error:
            raise FlowjaxError(f"edge {key[1]!r}: {error}") from None
    shares = pa.types.is_boolean(table.schema.field(column).type)
    means = (_shares if shares else _means)(list(found.values()))
    for (key, of), (mean, low, high) in zip(found.items(), means, strict=True):
        yield Curve(*key, of, mean, low, high)


Means = tuple[Float[np.ndarray, " layers"], ...]
"""Mean, low and high."""


def _means(found: Sequence[BySample]) -> list[Means]:
    """Of numbers. Edges of the same samples are resampled at once, with the same draws."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, of in enumerate(found):
        alike.setdefault(of.samples, []).append(index)
    out: dict[int, Means] = {}
    for indices in alike.values():
        ends = np.cumsum([found[index].values.shape[1] for index in indices])
        at_once = np.concatenate([found[index].values for index in indices], axis=1)
        parts = (np.split(values, ends[:-1]) for values in bootstrap_mean(at_once))
        out |= dict(zip(indices, zip(*parts, strict=True), strict=True))
    return [out[index] for index in range(len(found))]


def _shares(found: Sequence[BySample]) -> list[Means]:
    """Of answers that are right or wrong, in percent, with score intervals."""
    out = []
    for of in found:
        every = [mean_interval(right).percent for right in of.values.T.astype(bool)]
        mean, low, high = np.array([(at.mean, at.low, at.high) for at in every]).T
        out.append((mean, low, high))
    return out


@dataclass(frozen=True, eq=False)
class JudgedCurve:
    """A curve, and p of each of its means, adjusted for all that was tested with them."""

    curve: Curve
    p: Float[np.ndarray, " layers"]

    def interval(self, index: int) -> Interval:
        """Of one window."""
        curve = self.curve
        numbers = (float(values[index]) for values in (curve.mean, curve.low, curve.high, self.p))
        return Interval(curve.samples, *numbers)

    @property
    def strongest(self) -> int:
        """The index of the window whose mean is largest in size."""
        return int(np.argmax(np.abs(self.curve.mean)))


def judged_curves(*tables: pa.Table) -> list[list[JudgedCurve]]:
    """Every edge's curve in every table; all windows of all are tested together."""
    return together([list(curves(table)) for table in tables])


def together(every: Sequence[Sequence[Curve]]) -> list[list[JudgedCurve]]:
    """Curves, in groups, whose windows are tested together."""
    found = [curve.found for some in every for curve in some]
    p = iter(adjusted_p(beside(found)) if found else ())
    return [
        [JudgedCurve(curve, np.array(list(islice(p, len(curve.mean))))) for curve in some]
        for some in every
    ]


def strongest(*tables: pa.Table) -> list[list[Strongest]]:
    """The strongest window of every edge of every table; all windows of all are tested together."""
    return [[_strongest(at) for at in some] for some in judged_curves(*tables)]


def _strongest(at: JudgedCurve) -> Strongest:
    curve, index = at.curve, at.strongest
    return Strongest(curve.edge_set, curve.label, int(curve.layer[index]), at.interval(index))


def strongest_table(title: str, table: pa.Table) -> list[Table | str]:
    """What is printed of the edges whose windows change most."""
    (found,) = strongest(table)
    rows = sorted(found, key=lambda row: -abs(row.interval.mean))
    cells = [
        [row.edge_set, row.edge, str(row.layer), *judged(row.interval, "+.1f")]
        for row in rows[:SHOWN]
    ]
    numbers = [LAYER, "change %", *JUDGED]
    more = [f"... and {len(rows) - SHOWN} more edges"] if len(rows) > SHOWN else []
    tested = len(distinct(table, "edge_set", "edge", "head", "centre"))
    note = tested_note(f"all {tested} windows of all edges")
    return [Table(title, ["edge set", "edge cut"], numbers, cells, note), *more]
