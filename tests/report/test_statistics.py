import math

import numpy as np
import pytest
import scipy.stats

from flowjax.errors import FlowjaxError
from flowjax.report import statistics
from flowjax.report.statistics import Interval, bootstrap_mean


def samples(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(3, 2, shape)


def test_of_two_samples():
    """A resample of two is both with probability 1/2, and each one twice with 1/4."""
    mean, low, high = bootstrap_mean(np.array([-1.0, 4.0]))
    assert (mean, low, high) == (1.5, -1, 4)
    # Within the middle half lies the mean only.
    assert bootstrap_mean(np.array([-1.0, 4.0]), confidence=0.4)[1:] == (1.5, 1.5)


def test_of_one_sample_is_the_sample():
    mean, low, high = bootstrap_mean(np.array([[0.1, -7.3, 1e300]]))
    np.testing.assert_array_equal([mean, low, high], [[0.1, -7.3, 1e300]] * 3)


def test_of_equal_samples_is_their_value():
    mean, low, high = bootstrap_mean(np.full((9, 2), -0.3))
    np.testing.assert_allclose([mean, low, high], -0.3, rtol=1e-14)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_many_samples_give_the_normal_interval(confidence):
    values = samples(4000)
    mean, low, high = bootstrap_mean(values, confidence=confidence)
    error = values.std() / math.sqrt(len(values))
    half = scipy.stats.norm.ppf((1 + confidence) / 2) * error
    assert mean == pytest.approx(values.mean(), abs=1e-12)
    # The ends of 10,000 resamples are themselves known to about 2% of the standard error.
    assert low == pytest.approx(mean - half, abs=0.08 * error)
    assert high == pytest.approx(mean + half, abs=0.08 * error)


@pytest.mark.parametrize("count", [3, 8, 40])
def test_equals_scipy_within_sampling_error(count):
    values = np.random.default_rng(count).exponential(2, count)  # skewed
    _, low, high = bootstrap_mean(values, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    error = values.std() / math.sqrt(count)
    assert low == pytest.approx(theirs.low, abs=0.08 * error)
    assert high == pytest.approx(theirs.high, abs=0.08 * error)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(5)
    _, low, high = bootstrap_mean(rng.normal(0, 1, (60, 1500)), resamples=1000)
    assert ((low < 0) & (high > 0)).mean() == pytest.approx(0.94, abs=0.02)  # 60 is not many


def test_trailing_axes_are_resampled_alike():
    values = samples(7, 3, 4)
    together = bootstrap_mean(values, resamples=500)
    for row in range(3):
        for column in range(4):
            alone = bootstrap_mean(values[:, row, column], resamples=500)
            for ours, theirs in zip(together, alone, strict=True):
                assert ours.shape == (3, 4)
                assert ours[row, column] == pytest.approx(float(theirs), rel=1e-12)


@pytest.mark.parametrize("block", [1, 40, 1000])
def test_blocks_change_nothing(block, monkeypatch):
    values = samples(11, 6)
    wanted = bootstrap_mean(values, resamples=300)
    monkeypatch.setattr(statistics, "BLOCK", block)
    for ours, theirs in zip(bootstrap_mean(values, resamples=300), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_shift_and_scale():
    values = samples(12)
    mean, low, high = bootstrap_mean(values)
    # A negative factor exchanges the ends.
    wanted = (5 - 2 * mean, 5 - 2 * high, 5 - 2 * low)
    np.testing.assert_allclose(bootstrap_mean(5 - 2 * values), wanted)


def test_seed_decides():
    values = samples(10)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_what_cannot_be_averaged():
    with pytest.raises(FlowjaxError, match="no samples"):
        bootstrap_mean(np.empty((0, 4)))
    for bad in (math.nan, math.inf):
        with pytest.raises(FlowjaxError, match="not finite"):
            bootstrap_mean(np.array([1.0, bad]))


@pytest.mark.parametrize(
    ("n", "low", "high", "excludes"),
    [
        (5, 1.0, 3.0, True),
        (5, -3.0, -1.0, True),
        (5, -1.0, 3.0, False),
        (5, 0.0, 3.0, False),
        (1, 2.0, 2.0, False),
    ],
)
def test_only_an_interval_can_exclude_zero(n, low, high, excludes):
    assert Interval(n, (low + high) / 2, low, high).excludes_zero is excludes
