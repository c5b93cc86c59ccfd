"""What is said of samples: means, differences and shares with intervals, and rank correlation.

Intervals of means are studentised bootstrap intervals over samples (Efron 1979; Hall 1988); those
of answers, right or wrong, are score intervals. Each is of one number alone: `sign_flips.py` says
what holds of many at once. `flowjax bench coverage` measures how often both are right.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from flowjax.errors import FlowjaxError

BLOCK = 1 << 22
"""Numbers held at a time, of each kind."""

LEAST = 6
"""Samples of which more than their mean is said.

Fewer cannot reach 5% in a test of their signs, and any bootstrap interval of them is too narrow.
"""

LEAST_SPREAD = 0.2
"""A resample's standard deviation counts as at least this part of the samples'.

Where few samples differ from the others, resamples without any of those have none, and the interval
would be endless.
"""

LEVEL = 0.05
"""Adjusted p below which a mean is called an effect."""


@dataclass(frozen=True)
class Interval:
    """A mean over n samples and its pointwise interval.

    low, high: NaN where a bootstrap has fewer than `LEAST` samples.
    p: of no effect, adjusted for all that was tested with it; NaN where it was not tested.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float = math.nan

    @property
    def is_effect(self) -> bool:
        """Whether it was tested, p is below `LEVEL` and the interval excludes zero."""
        return self.p < LEVEL and not self.low <= 0 <= self.high

    @property
    def percent(self) -> "Interval":
        """The same of a share or a probability, times 100."""
        return Interval(self.n, 100 * self.mean, 100 * self.low, 100 * self.high, self.p)


def bootstrap_mean(
    values: Float[np.ndarray, "n *rest"],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Mean over the first axis, and the ends of its studentised bootstrap interval.

    The ends are mean - t s, with the quantiles of t = (mean* - mean) / max(s*, `LEAST_SPREAD` s)
    over resamples *, where s is the standard deviation. Samples are drawn as wholes: every entry of
    the trailing axes is resampled alike.

    Args:
        values: finite, one row per sample.
        resamples: bootstrap samples.
        confidence: of the interval, 0 to 1.
        seed: of the resampling.

    Returns:
        mean, low and high, each of the trailing shape; low and high are NaN for fewer than `LEAST`
        samples, and the mean itself where all samples are equal.

    Raises:
        FlowjaxError: no sample, or a value that is not finite.
    """
    if not len(values):
        raise FlowjaxError("no samples to average")
    if not np.isfinite(values).all():
        raise FlowjaxError("a value to average is not finite")
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    mean = flat.mean(axis=0)
    low, high = np.full((2, flat.shape[1]), math.nan)
    ends = (1 + confidence) / 2, (1 - confidence) / 2
    step = max(1, BLOCK // resamples)
    for start in range(0, flat.shape[1] if len(flat) >= LEAST else 0, step):
        some = slice(start, start + step)
        t, spread = _resampled_t(flat[:, some] - mean[some], resamples, seed)
        low[some], high[some] = mean[some] - np.quantile(t, ends, axis=0) * spread
    shape = values.shape[1:]
    return mean.reshape(shape), low.reshape(shape), high.reshape(shape)


def mean_interval(values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"]) -> Interval:
    """Mean of one number per sample with its 95% interval; of booleans, `proportion_interval`.

    Raises:
        FlowjaxError: see `bootstrap_mean`.
    """
    if values.dtype == bool:
        return proportion_interval(int(values.sum()), len(values))
    mean, low, high = bootstrap_mean(values)
    return Interval(len(values), float(mean), float(low), float(high))


def paired_interval(
    new: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"],
    base: Float[np.ndarray, " m"] | Bool[np.ndarray, " m"],
) -> Interval:
    """Mean of new - base, both of the same samples in the same order, with its 95% interval.

    Samples are resampled with both of their values, so what varies between samples and not between
    the two conditions does not widen the interval. Two shares, booleans, have an interval that does
    not shrink to a point where they agree in every sample; a boolean beside numbers is 0 or 1.

    Raises:
        FlowjaxError: different numbers of samples; see `bootstrap_mean`.
    """
    if len(new) != len(base):
        raise FlowjaxError(f"{len(new)} and {len(base)} samples cannot be paired")
    if new.dtype == base.dtype == bool:
        return paired_shares_interval(int((new & ~base).sum()), int((~new & base).sum()), len(new))
    return mean_interval(np.asarray(new, np.float64) - np.asarray(base, np.float64))


def paired_shares_interval(more: int, fewer: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Difference of two shares of the same n samples (Bonett & Price 2012, adjusted Wald).

    Args:
        more: samples that count for the first share only.
        fewer: samples that count for the second only.
        n: samples, at least 1.
        confidence: of the interval, 0 to 1.

    Raises:
        FlowjaxError: no samples, or numbers of them that do not add up.
    """
    if n < 1 or min(more, fewer) < 0 or more + fewer > n:
        raise FlowjaxError(f"{more} and {fewer} of {n} samples are no shares")
    centre = (more - fewer) / (n + 2)
    variance = (more + fewer + 2) / (n + 2) - centre**2
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance / (n + 2))
    return Interval(n, (more - fewer) / n, max(-1.0, centre - half), min(1.0, centre + half))


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
    """Share a - share b of two separate groups, from their score intervals; n: of the smaller.

    Newcombe 1998 (Statistics in Medicine 17, 873-890), method 10.
    """
    mean = a.mean - b.mean
    low = mean - math.hypot(a.mean - a.low, b.high - b.mean)
    high = mean + math.hypot(a.high - a.mean, b.mean - b.low)
    return Interval(min(a.n, b.n), mean, low, high)


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


def _resampled_t(
    deviations: Float[np.ndarray, "n columns"], resamples: int, seed: int
) -> tuple[Float[np.ndarray, "resamples columns"], Float[np.ndarray, " columns"]]:
    """Studentised means of samples drawn with replacement, and the samples' standard deviation.

    deviations: from the mean. The same samples are drawn for the same n and seed.
    """
    largest = np.abs(deviations).max(axis=0)
    scaled = deviations / np.where(largest > 0, largest, 1.0)  # no square is out of range
    spread = np.sqrt((scaled**2).mean(axis=0))
    t = np.empty((resamples, len(spread)))
    start = 0
    for counts in _drawn(len(scaled), resamples, seed):
        means = counts @ scaled / len(scaled)
        own = np.sqrt(np.maximum(counts @ scaled**2 / len(scaled) - means**2, 0))
        own = np.maximum(own, LEAST_SPREAD * spread)
        t[start : start + len(counts)] = means / np.where(own > 0, own, 1.0)
        start += len(counts)
    return t, spread * largest


def _drawn(samples: int, resamples: int, seed: int) -> Iterator[Int[np.ndarray, "some samples"]]:
    """How often each sample is in each resample, some resamples at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // samples)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(samples, size=(size, samples))
        drawn += samples * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * samples).reshape(size, samples)
