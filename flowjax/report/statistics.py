"""What is said of samples: means, differences and shares with intervals, and rank correlation.

Intervals of means are bootstrap intervals over samples (Efron 1979), percentile method.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from flowjax.errors import FlowjaxError

BLOCK = 1 << 22
"""Numbers held at a time, of each kind."""


@dataclass(frozen=True)
class Interval:
    """A mean over n samples and its interval (a bootstrap's is the mean itself where n is 1)."""

    n: int
    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known (n > 1) and lies wholly on one side of zero."""
        return self.n > 1 and not self.low <= 0 <= self.high

    @property
    def percent(self) -> "Interval":
        """The same of a share or a probability, times 100."""
        return Interval(self.n, 100 * self.mean, 100 * self.low, 100 * self.high)


def bootstrap_mean(
    values: Float[np.ndarray, "n *rest"],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Mean over the first axis, and the ends of its percentile bootstrap interval.

    Samples are drawn as wholes: every entry of the trailing axes is resampled alike.

    Args:
        values: finite, one row per sample.
        resamples: bootstrap samples.
        confidence: of the interval, 0 to 1.
        seed: of the resampling.

    Returns:
        mean, low and high, each of the trailing shape.

    Raises:
        FlowjaxError: no sample, or a value that is not finite.
    """
    if not len(values):
        raise FlowjaxError("no samples to average")
    if not np.isfinite(values).all():
        raise FlowjaxError("a value to average is not finite")
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    columns = flat.shape[1]
    low, high = np.empty(columns), np.empty(columns)
    ends = (1 - confidence) / 2, (1 + confidence) / 2
    step = max(1, BLOCK // resamples)
    for start in range(0, columns, step):
        some = flat[:, start : start + step]
        means = _resampled_means(some, resamples, seed)
        low[start : start + step], high[start : start + step] = np.quantile(means, ends, axis=0)
    shape = values.shape[1:]
    return flat.mean(axis=0).reshape(shape), low.reshape(shape), high.reshape(shape)


def mean_interval(values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"]) -> Interval:
    """Mean of one number per sample with its 95% bootstrap interval.

    Raises:
        FlowjaxError: see `bootstrap_mean`.
    """
    mean, low, high = bootstrap_mean(np.asarray(values, np.float64))
    return Interval(len(values), float(mean), float(low), float(high))


def paired_interval(
    new: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"],
    base: Float[np.ndarray, " m"] | Bool[np.ndarray, " m"],
) -> Interval:
    """Mean of new - base, both of the same samples in the same order, with its 95% interval.

    Samples are resampled with both of their values, so what varies between samples and not between
    the two conditions does not widen the interval. Booleans count as 0 and 1.

    Raises:
        FlowjaxError: different numbers of samples; see `bootstrap_mean`.
    """
    if len(new) != len(base):
        raise FlowjaxError(f"{len(new)} and {len(base)} samples cannot be paired")
    return mean_interval(np.asarray(new, np.float64) - np.asarray(base, np.float64))


def proportion_interval(hits: int, n: int, *, confidence: float = 0.95) -> Interval:
    """A share of n samples with its score interval (Wilson 1927).

    Unlike a bootstrap it does not shrink to a point where all samples agree.

    Args:
        hits: samples that count, 0 to n.
        n: samples, at least 1.
        confidence: of the interval, 0 to 1.

    Raises:
        FlowjaxError: no samples, or hits that are not 0 to n.
    """
    if n < 1 or not 0 <= hits <= n:
        raise FlowjaxError(f"{hits} of {n} samples is no share")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    # Exactly 0 and 1 where they are due, which rounding misses.
    low = 0.0 if hits == 0 else centre - half
    high = 1.0 if hits == n else centre + half
    return Interval(n, share, low, high)


def difference_interval(a: Interval, b: Interval) -> Interval:
    """Share a - share b of two separate groups, from their score intervals.

    Newcombe 1998 (Statistics in Medicine 17, 873-890), method 10.
    """
    mean = a.mean - b.mean
    low = mean - math.hypot(a.mean - a.low, b.high - b.mean)
    high = mean + math.hypot(a.high - a.mean, b.mean - b.low)
    return Interval(a.n + b.n, mean, low, high)


def rank_correlation(a: Shaped[np.ndarray, " n"], b: Shaped[np.ndarray, " m"]) -> float:
    """Spearman's rank correlation, -1 to 1; equal values share the mean of their ranks.

    Returns:
        NaN where all of a, or all of b, are equal, or there are fewer than two.

    Raises:
        FlowjaxError: different numbers of values, or a value that is not finite.
    """
    if len(a) != len(b):
        raise FlowjaxError(f"{len(a)} and {len(b)} values cannot be paired")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise FlowjaxError("a value to rank is not finite")
    x, y = (_ranks(values) - (len(values) + 1) / 2 for values in (a, b))
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def _ranks(values: Shaped[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1; equal values have the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: Int[np.ndarray, " groups"] = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]


def _resampled_means(
    values: Float[np.ndarray, "n columns"], resamples: int, seed: int
) -> Float[np.ndarray, "resamples columns"]:
    """Means of samples drawn with replacement; the same draws for the same n and seed."""
    samples = len(values)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, BLOCK // samples)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(samples, size=(size, samples))
        drawn += samples * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * samples).reshape(size, samples)
        means[start : start + size] = counts @ values / samples
    return means
