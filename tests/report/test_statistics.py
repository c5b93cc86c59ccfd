import math

import numpy as np
import pytest
import scipy.stats

from flowjax.errors import FlowjaxError
from flowjax.report import statistics
from flowjax.report.statistics import (
    Interval,
    bootstrap_mean,
    paired_interval,
    proportion_interval,
    rank_correlation,
)


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


def test_a_pairs_interval_is_that_of_the_differences():
    base = samples(30)
    new = base + np.random.default_rng(1).normal(0.4, 0.1, 30)
    found = paired_interval(new, base)
    mean, low, high = bootstrap_mean(new - base)
    assert (found.n, found.mean, found.low, found.high) == (30, mean, low, high)
    # The samples differ far more than the pairs: only the pairs tell the two apart.
    assert found.excludes_zero
    assert not Interval(30, *map(float, bootstrap_mean(new - base[::-1]))).excludes_zero


def test_a_pairs_interval_equals_scipys():
    rng = np.random.default_rng(8)
    base, new = rng.exponential(1, 25), rng.exponential(1.5, 25)
    found = paired_interval(new, base)
    theirs = scipy.stats.bootstrap(
        (new, base),
        lambda new, base, axis: np.mean(new - base, axis=axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=1,
    ).confidence_interval
    error = (new - base).std() / 5
    assert found.low == pytest.approx(theirs.low, abs=0.08 * error)
    assert found.high == pytest.approx(theirs.high, abs=0.08 * error)


def test_a_pairs_interval_of_answers():
    """One of four answers becomes right: the mean is binomial, k / 4 with p = 1/4."""
    base, new = np.array([True, False, True, False]), np.array([True, True, True, False])
    found = paired_interval(new, base)
    assert (found.n, found.mean) == (4, 0.25)
    ends = [scipy.stats.binom.ppf(end, 4, 0.25) / 4 for end in (0.025, 0.975)]
    assert [found.low, found.high] == ends
    assert paired_interval(base, new).mean == -0.25
    with pytest.raises(FlowjaxError, match="4 and 3 samples"):
        paired_interval(new, base[:3])


@pytest.mark.parametrize("n", [1, 4, 37, 5000])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_shares_interval_equals_scipys(n, share, confidence):
    hits = round(share * n)
    found = proportion_interval(hits, n, confidence=confidence)
    theirs = scipy.stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
    assert (found.n, found.mean) == (n, hits / n)
    assert found.low == pytest.approx(theirs.low, abs=1e-12)
    assert found.high == pytest.approx(theirs.high, abs=1e-12)


def test_a_shares_interval_solves_wilsons_equation():
    """Its ends p are where |hits / n - p| is z standard errors of p."""
    z = scipy.stats.norm.ppf(0.975)
    found = proportion_interval(9, 40)
    for end in (found.low, found.high):
        assert abs(9 / 40 - end) == pytest.approx(z * math.sqrt(end * (1 - end) / 40))
    # All of a few samples agree, and still the interval is no point.
    assert proportion_interval(0, 10).low == 0
    assert proportion_interval(0, 10).high == pytest.approx(z**2 / (10 + z**2))
    for hits, n in ((0, 0), (-1, 4), (5, 4)):
        with pytest.raises(FlowjaxError, match=f"{hits} of {n} samples"):
            proportion_interval(hits, n)


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_equals_scipys(ties):
    rng = np.random.default_rng(4)
    for size in (2, 5, 300):
        a, b = rng.normal(size=(2, size))
        b = b + 0.5 * a
        if ties:
            a, b = np.floor(2 * a), np.floor(3 * b)
            a[0], b[0] = -99, 99
        theirs = scipy.stats.spearmanr(a, b).statistic
        assert rank_correlation(a, b) == pytest.approx(theirs, abs=1e-12)


def test_rank_correlation_by_hand():
    up = np.array([1, 2, 3, 4, 5])
    assert rank_correlation(up, up**3) == pytest.approx(1)
    assert rank_correlation(up, -np.exp(up)) == pytest.approx(-1)
    # Without ties it is 1 - 6 sum d^2 / (n (n^2 - 1)); here d = 1, -1, 0, 0, 0.
    assert rank_correlation(up, np.array([2, 1, 3, 4, 5])) == pytest.approx(1 - 12 / 120)
    assert math.isnan(rank_correlation(up, np.zeros(5)))
    assert math.isnan(rank_correlation(up[:1], up[:1]))
    with pytest.raises(FlowjaxError, match="not finite"):
        rank_correlation(up, np.array([1, 2, 3, 4, math.nan]))
    with pytest.raises(FlowjaxError, match="5 and 4"):
        rank_correlation(up, up[:4])
