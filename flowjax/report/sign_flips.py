"""What holds of many means at once: p adjusted for the largest of them, by sign flips of samples.

If what is cut changes nothing, a sample's changes are as likely of the other sign. Signs are
flipped, each sample's in all places at once, and the largest of all studentised means is taken each
time: p is the share of flips whose largest is at least a mean's own (Westfall & Young 1993; Nichols
& Holmes 2002). So where there is no effect, the chance that anything is called one is at most the
level. Two groups of samples are compared alike, exchanging their members.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float

from flowjax.errors import FlowjaxError
from flowjax.report.statistics import BLOCK, LEAST, Interval

EXACT = 14
"""Samples up to which all flips are taken: 2^13, as all signs together change no size."""

DRAWS = 9_999
"""Flips that are drawn for more samples, beside the one that is there."""

TIE = 1 - 1e-9
"""Rounding that makes no difference between two means."""

Contrasts = Float[np.ndarray, "some n"]
"""Weights of every sample's value in a sum, a row each."""


def adjusted_p(
    values: Float[np.ndarray, "n *rest"], *, draws: int = DRAWS, seed: int = 0
) -> Float[np.ndarray, "*rest"]:
    """p of every mean over samples, adjusted for all of them.

    A mean counts by |sum x| / sqrt(sum x^2), which grows with its |t|; flips change the sum alone.

    Args:
        values: one row per sample; NaN where a sample has no value, as of an edge that it lacks.
        draws: flips drawn for more samples than `EXACT`.
        seed: of the drawing.

    Returns:
        p of the trailing shape, NaN for means of fewer than `LEAST` samples: they are not tested.

    Raises:
        FlowjaxError: an infinite value.
    """
    if np.isinf(values).any():
        raise FlowjaxError("a value to test is not finite")
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    enough = (~np.isnan(flat)).sum(axis=0) >= LEAST
    p = np.full(flat.shape[1], math.nan)
    if enough.any():
        rows = np.nan_to_num(flat[:, enough], nan=0.0)
        flips = _flips(len(rows), rows.shape[1], draws, seed)
        p[enough] = _share_at_least(rows, np.ones(len(rows)), flips)
    return p.reshape(values.shape[1:])


def adjusted_p_between(
    values: Float[np.ndarray, "n columns"],
    group: Bool[np.ndarray, " n"],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Float[np.ndarray, " columns"]:
    """p of every difference between the means of two groups of samples, adjusted for all of them.

    Args:
        values: finite, one row per sample.
        group: which samples are in the first group; the others are in the second.
        draws: other choices of the members, beside the one that is there.
        seed: of the drawing.

    Returns:
        p, NaN where a group has fewer than `LEAST` samples: they are not tested.

    Raises:
        FlowjaxError: a value that is not finite.
    """
    if not np.isfinite(values).all():
        raise FlowjaxError("a value to test is not finite")
    if min(group.sum(), (~group).sum()) < LEAST:
        return np.full(values.shape[1], math.nan)
    centred = values - values.mean(axis=0)
    own = np.where(group, 1 / group.sum(), -1 / (~group).sum())
    return _share_at_least(centred, own, _exchanges(own, values.shape[1], draws, seed))


def adjusted(
    intervals: Sequence[Interval], values: Float[np.ndarray, "n intervals"]
) -> list[Interval]:
    """Intervals of means with p, adjusted for all of them.

    values: what they are the means of, one row per sample; see `adjusted_p`.
    """
    return [with_p(at, own) for at, own in zip(intervals, adjusted_p(values), strict=True)]


def with_p(interval: Interval, p: float) -> Interval:
    """The interval of a mean that was tested."""
    return dataclasses.replace(interval, p=float(p))


def _share_at_least(
    rows: Float[np.ndarray, "n columns"], own: Float[np.ndarray, " n"], others: Iterable[Contrasts]
) -> Float[np.ndarray, " columns"]:
    """For every column, the share of contrasts of which any column's sum is at least its own."""
    size = np.abs(rows).max(axis=0)
    unit = rows / np.where(size > 0, size, 1.0)  # no square is out of range
    length = np.sqrt((unit**2).sum(axis=0))
    unit /= np.where(length > 0, length, 1.0)
    largest = np.sort(np.concatenate([np.abs(some @ unit).max(axis=1) for some in others]))
    below = np.searchsorted(largest, TIE * np.abs(own @ unit))
    return (len(largest) - below) / len(largest)


def _flips(samples: int, columns: int, draws: int, seed: int) -> Iterator[Contrasts]:
    """Signs of the samples; the first are those that are there."""
    if samples <= EXACT:
        rest = np.array(list(itertools.product((1.0, -1.0), repeat=samples - 1)))
        flips, start = np.insert(rest, 0, 1.0, axis=1), 0
        for size in _sizes(samples, columns, len(flips)):
            yield flips[start : start + size]
            start += size
        return
    yield np.ones((1, samples))
    rng = np.random.default_rng(seed)
    for size in _sizes(samples, columns, draws):
        yield 1.0 - 2.0 * rng.integers(2, size=(size, samples))


def _exchanges(
    own: Float[np.ndarray, " n"], columns: int, draws: int, seed: int
) -> Iterator[Contrasts]:
    """Weights of the samples, given to other samples; the first are those that are there."""
    yield own[None]
    rng = np.random.default_rng(seed)
    for size in _sizes(len(own), columns, draws):
        yield rng.permuted(np.tile(own, (size, 1)), axis=1)


def _sizes(samples: int, columns: int, draws: int) -> Iterator[int]:
    """Draws, some at a time."""
    step = max(1, BLOCK // max(samples, columns))
    return (min(step, draws - start) for start in range(0, draws, step))
