"""Rows of results as arrays with an axis of samples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from flowjax.errors import FlowjaxError


@dataclass(frozen=True, eq=False)
class BySample:
    """One column of a table, with an axis of samples and one of each other column asked for.

    samples: ids, in the order in which they first occur.
    axes: the distinct values of each other column, ascending.
    values: float64 [samples, *axes].
    """

    samples: tuple[str, ...]
    axes: tuple[tuple[Any, ...], ...]
    values: Float[np.ndarray, "samples *axes"]


def by_sample(table: pa.Table, column: str, *others: str) -> BySample:
    """A number per sample and value of the other columns.

    Raises:
        FlowjaxError: no rows, a sample without a row for some values, or a number that is not
            finite.
    """
    if not table.num_rows:
        raise FlowjaxError("the results hold no rows to draw")
    names = table["sample_id"].to_pylist()
    samples = tuple(dict.fromkeys(names))
    place = {name: index for index, name in enumerate(samples)}
    indices = [np.array([place[name] for name in names])]
    axes = []
    for other in others:
        values, index = np.unique(table[other].to_numpy(zero_copy_only=False), return_inverse=True)
        axes.append(tuple(values.tolist()))
        indices.append(index)
    shape = (len(samples), *map(len, axes))
    out, seen = np.full(shape, np.nan), np.zeros(shape, bool)
    out[tuple(indices)] = table[column].to_numpy(zero_copy_only=False)
    seen[tuple(indices)] = True
    for where, what in ((~seen, "no result"), (~np.isfinite(out), "no finite number")):
        for sample, *rest in np.argwhere(where)[:1]:
            at = ", ".join(
                f"{other} {axis[index]}"
                for other, axis, index in zip(others, axes, rest, strict=True)
            )
            raise FlowjaxError(f"sample {samples[sample]!r} has {what} in {column} for {at}")
    return BySample(samples, tuple(axes), out)
