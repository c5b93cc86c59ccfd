"""Choosing how much to save from samples, with a guarantee on how many answers that loses.

A saving has settings in an order, of which the first changes nothing and each later one saves more.
Of calibration samples it is known at which settings their answer is lost. Two rules choose a
setting, and each guarantees something else of the *loss*, the chance that a new sample's answer is
lost there:

- `conformal_risk_control` (Angelopoulos et al. 2024, arXiv 2208.02814): its mean over draws of
  calibration samples is at most the level. In many a draw it is above.
- `learn_then_test` (Angelopoulos et al. 2021, arXiv 2110.01052): it is above the level in at most
  a share `delta` of draws.

Both need calibration samples and new ones to be exchangeable, and settings that were not chosen by
what the calibration samples gave.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from flowjax.errors import FlowjaxError


def conformal_risk_control(lost: Bool[np.ndarray, "samples settings"], level: int | float) -> int:
    """The last setting whose loss is at most `level` in the mean over draws.

    That is the last one with (k + 1) / (n + 1) <= level, where k of n samples are lost: the
    published n / (n + 1) R + B / (n + 1) with losses of at most B = 1. A sample that is lost at a
    setting counts as lost at all later ones, which the guarantee needs and which only makes it
    more careful.

    Args:
        lost: of calibration samples; the first setting is the one that loses none.
        level: above 0 and below 1.

    Raises:
        FlowjaxError: no samples, or another level.
    """
    _check(lost, level)
    count = np.logical_or.accumulate(lost, axis=1).sum(axis=0)
    return _passed((count + 1) / (len(lost) + 1) <= level)


def learn_then_test(
    lost: Bool[np.ndarray, "samples settings"], level: int | float, delta: int | float
) -> int:
    """The last setting whose loss is at most `level` but for a share `delta` of draws.

    Settings are tested in their order, each at `delta`, until one cannot be told to be good
    (fixed-sequence testing). Whoever chooses among several such sequences gives each its part of
    `delta` (Bonferroni).

    Args:
        lost: of calibration samples; the first setting is the one that loses none.
        level: above 0 and below 1.
        delta: above 0 and below 1.

    Raises:
        FlowjaxError: no samples, or another level or delta.
    """
    _check(lost, level)
    if not 0 < delta < 1:
        raise FlowjaxError(f"delta {delta}: it must be above 0 and below 1")
    return _passed(binomial_p(lost.sum(axis=0), len(lost), level) <= delta)


def binomial_p(
    count: Int[np.ndarray, " settings"], samples: int, level: int | float
) -> Float[np.ndarray, " settings"]:
    """p of the hypothesis that more than `level` of all samples are lost.

    The chance that at most `count` of `samples` independent ones are, if each is with chance
    `level`: exact for losses of 0 or 1, where Hoeffding's and Bentkus's bounds for losses between
    are up to e times larger.
    """
    k = np.arange(samples + 1)
    ways = [math.lgamma(samples + 1) - math.lgamma(i + 1) - math.lgamma(samples - i + 1) for i in k]
    log = np.array(ways) + k * math.log(level) + (samples - k) * math.log1p(-level)
    return np.minimum(np.cumsum(np.exp(log))[count], 1.0)


def _check(lost: Bool[np.ndarray, "samples settings"], level: int | float) -> None:
    if not len(lost):
        raise FlowjaxError("no samples to calibrate on")
    if not 0 < level < 1:
        raise FlowjaxError(f"level {level}: it must be above 0 and below 1")


def _passed(good: Bool[np.ndarray, " settings"]) -> int:
    """The last setting before the first that is not good; the first one is taken in any case."""
    bad = np.flatnonzero(~good[1:])
    return int(bad[0]) if len(bad) else len(good) - 1
