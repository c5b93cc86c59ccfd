"""Rows of results as arrays with an axis of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from flowjax.errors import FlowjaxError


@dataclass(frozen=True, eq=False)
class BySample:
    """One column of a table, with an axis of samples and one of each other column asked for.

    samples: ids, ascending: what is drawn at random does not depend on the order of rows.
    axes: the distinct values of each other column, ascending.
    values: float64 [samples, *axes].
    """

    samples: tuple[str, ...]
    axes: tuple[tuple[Any, ...], ...]
    values: Float[np.ndarray, "samples *axes"]


def by_sample(
    table: pa.Table, column: str, *others: str, several: Literal["mean", "sum"] | None = None
) -> BySample:
    """A number per sample and value of the other columns, whatever the order of the rows.

    several: what becomes of several rows in one place; None refuses them.

    Raises:
        FlowjaxError: no rows, a sample without a row for some values or with several, or a number
            that is not finite.
    """
    if not table.num_rows:
        raise FlowjaxError("the results hold no rows to draw")
    names = table["sample_id"].to_pylist()
    samples = tuple(sorted(set(names)))
    place = {name: index for index, name in enumerate(samples)}
    indices = [np.array([place[name] for name in names])]
    axes = []
    for other in others:
        values, index = np.unique(table[other].to_numpy(zero_copy_only=False), return_inverse=True)
        axes.append(tuple(values.tolist()))
        indices.append(index)
    shape = (len(samples), *map(len, axes))
    out, seen = np.zeros(shape), np.zeros(shape, int)
    numbers = table[column].to_numpy(zero_copy_only=False).astype(np.float64)
    order = np.argsort(
        numbers, kind="stable"
    )  # sums do not depend on the order of rows, to the bit
    np.add.at(out, tuple(index[order] for index in indices), numbers[order])
    np.add.at(seen, tuple(indices), 1)
    problems = [(seen == 0, "no result"), (~np.isfinite(out), "no finite number")]
    if several is None:
        problems.append((seen > 1, "several results"))
    for where, what in problems:
        for sample, *rest in np.argwhere(where)[:1]:
            at = ", ".join(
                f"{other} {axis[index]}"
                for other, axis, index in zip(others, axes, rest, strict=True)
            )
            raise FlowjaxError(f"sample {samples[sample]!r} has {what} in {column} for {at}")
    return BySample(samples, tuple(axes), out / seen if several == "mean" else out)


def beside(found: Sequence[BySample]) -> Float[np.ndarray, "samples columns"]:
    """All values of several columns beside each other; NaN where a sample is not in one."""
    samples = sorted({name for one in found for name in one.samples})
    place = {name: index for index, name in enumerate(samples)}
    parts = []
    for one in found:
        values = one.values.reshape(len(one.samples), -1)
        part = np.full((len(samples), values.shape[1]), np.nan)
        part[[place[name] for name in one.samples]] = values
        parts.append(part)
    return np.concatenate(parts, axis=1)


def distinct(table: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    """The different values that some columns have together, in the order in which they occur."""
    return list(dict.fromkeys(zip(*(table[name].to_pylist() for name in columns), strict=True)))


def grouped(table: pa.Table, column: str) -> dict[Any, pa.Table]:
    """The rows of every value of a column, in the order in which values occur."""
    values = dict.fromkeys(table[column].to_pylist())
    return {value: table.filter(pc.field(column) == value) for value in values}
