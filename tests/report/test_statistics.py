import math

import numpy as np
import pytest
import scipy.stats

from flowjax.errors import FlowjaxError
from flowjax.report import statistics
from flowjax.report.statistics import (
    Interval,
    bootstrap_mean,
    mean_interval,
    paired_interval,
    paired_shares_interval,
    proportion_interval,
    rank_correlation,
)


def samples(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(3, 2, shape)


def resampled_by_hand(values, resamples=20_000):
    """Ends of a studentised interval, one resample at a time."""
    rng = np.random.default_rng(77)
    mean, spread = values.mean(), values.std()
    t = []
    for _ in range(resamples):
        some = rng.choice(values, len(values))
        t.append((some.mean() - mean) / max(some.std(), 0.2 * spread))
    return mean - spread * np.quantile(t, [0.975, 0.025])


@pytest.mark.parametrize("count", [2, 5])
def test_of_too_few_samples_only_the_mean_is_said(count):
    mean, low, high = bootstrap_mean(samples(count, 3))
    np.testing.assert_array_equal(mean, samples(count, 3).mean(axis=0))
    assert np.isnan([low, high]).all()
    assert np.isfinite(bootstrap_mean(samples(6, 3))).all()


def test_of_large_numbers():
    np.testing.assert_allclose(
        bootstrap_mean(1e200 * samples(7)), 1e200 * np.array(bootstrap_mean(samples(7)))
    )


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


@pytest.mark.parametrize("count", [8, 40])
@pytest.mark.parametrize("kind", ["skewed", "one differs"])
def test_equals_one_resample_after_the_other(count, kind):
    values = np.random.default_rng(count).exponential(2, count)
    if kind == "one differs":  # a third of the resamples lack it, and have no spread
        values = 1.0 * (np.arange(count) == 3)
    _, low, high = bootstrap_mean(values, resamples=20_000)
    np.testing.assert_allclose([low, high], resampled_by_hand(values), atol=0.08 * values.std())


def test_a_skewed_interval_reaches_further_on_the_long_side():
    mean, low, high = bootstrap_mean(np.random.default_rng(2).exponential(2, 20))
    assert high - mean > 1.3 * (mean - low)


def test_intervals_hold_as_often_as_they_say():
    """Skewed samples, of which the percentile method holds 88% (n = 12) and less."""
    rng = np.random.default_rng(5)
    for count, values, truth in (
        (12, rng.beta(0.5, 3, (12, 1500)), 0.5 / 3.5),
        (12, rng.exponential(1, (12, 1500)), 1.0),
        (30, rng.exponential(1, (30, 1500)), 1.0),
    ):
        _, low, high = bootstrap_mean(values, resamples=800)
        held = ((low < truth) & (truth < high)).mean()
        assert 0.93 < held < 0.975, count


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
    ("low", "high", "p", "effect"),
    [
        (1.0, 3.0, 0.01, True),
        (-3.0, -1.0, 0.01, True),
        (1.0, 3.0, 0.05, False),
        (-1.0, 3.0, 0.01, False),
        (1.0, 3.0, math.nan, False),
    ],
)
def test_an_effect_is_tested_and_its_interval_excludes_zero(low, high, p, effect):
    assert Interval(8, (low + high) / 2, low, high, p).is_effect is effect
    assert Interval(8, (low + high) / 2, low, high, p).percent.is_effect is effect


def test_a_pairs_interval_is_that_of_the_differences():
    base = samples(30)
    new = base + np.random.default_rng(1).normal(0.4, 0.1, 30)
    found = paired_interval(new, base)
    mean, low, high = bootstrap_mean(new - base)
    assert (found.n, found.mean, found.low, found.high) == (30, mean, low, high)
    # The samples differ far more than the pairs: only the pairs tell the two apart.
    assert found.low > 0
    assert bootstrap_mean(new - base[::-1])[1] < 0


def test_a_pairs_interval_of_answers():
    """One of four answers becomes right; two more are added, one of each kind."""
    base, new = np.array([True, False, True, False]), np.array([True, True, True, False])
    found = paired_interval(new, base)
    assert (found.n, found.mean) == (4, 0.25)
    added = np.array([0, 1, 0, 0, 1, -1])
    half = scipy.stats.norm.ppf(0.975) * added.std() / math.sqrt(6)
    assert found.low == pytest.approx(added.mean() - half)
    assert found.high == pytest.approx(added.mean() + half)
    other = paired_interval(base, new)
    assert (other.mean, other.low, other.high) == (-0.25, -found.high, -found.low)
    with pytest.raises(FlowjaxError, match="4 and 3 samples"):
        paired_interval(new, base[:3])
    with pytest.raises(FlowjaxError, match="3 and 2 of 4 samples"):
        paired_shares_interval(3, 2, 4)


def test_pairs_that_all_agree_are_not_known_to_agree_always():
    found = paired_interval(np.ones(12, bool), np.ones(12, bool))
    assert found.mean == 0
    assert -0.25 < found.low < -0.1 and 0.1 < found.high < 0.25


def test_a_mean_of_answers_is_a_share():
    right = np.array([True, True, False])
    assert mean_interval(right) == proportion_interval(2, 3)


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
