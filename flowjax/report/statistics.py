"""Means over samples with bootstrap intervals (Efron 1979): percentile method."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from flowjax.errors import FlowjaxError

BLOCK = 1 << 22
"""Numbers held at a time, of each kind."""


@dataclass(frozen=True)
class Interval:
    """A mean over n samples and its bootstrap interval (the mean itself where n is 1)."""

    n: int
    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known (n > 1) and lies wholly on one side of zero."""
        return self.n > 1 and not self.low <= 0 <= self.high


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
