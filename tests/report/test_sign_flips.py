import itertools
import math

import numpy as np
import pytest
import scipy.stats

from flowjax.errors import FlowjaxError
from flowjax.report import sign_flips
from flowjax.report.sign_flips import adjusted, adjusted_p, adjusted_p_between
from flowjax.report.statistics import Interval


def smooth(samples: int, columns: int, seed: int) -> np.ndarray:
    """Noise that is alike in neighbouring columns, as windows are."""
    noise = np.random.default_rng(seed).normal(size=(samples, columns + 4))
    return np.stack([noise[:, i : i + 5].sum(axis=1) for i in range(columns)], axis=1)


def by_hand(values: np.ndarray) -> list[float]:
    """Every flip of every sample, the largest |t| of each."""

    def t(rows):
        return abs(scipy.stats.ttest_1samp(rows, 0).statistic)

    flips = [t(values * np.array(s)[:, None]) for s in itertools.product((1, -1), repeat=7)]
    largest = np.max(flips, axis=1)
    return [float((largest >= own * (1 - 1e-9)).mean()) for own in t(values)]


def test_few_samples_are_flipped_in_every_way():
    values = smooth(7, 5, 0) + np.array([0, 0, 0, 3, 9])
    np.testing.assert_allclose(adjusted_p(values), by_hand(values))


def test_one_mean_alone_is_a_sign_flip_test():
    assert adjusted_p(np.array([1.0, 2, 3, 4, 5, 6])) == 2 / 2**6
    assert adjusted_p(np.array([-1.0, 2, 3, 4, 5, 6])) == 4 / 2**6
    theirs = scipy.stats.permutation_test(
        (x := smooth(30, 1, 1)[:, 0] + 0.8, -x), lambda a, b: np.mean(a - b), n_resamples=20_000,
        permutation_type="samples", rng=1,
    )  # fmt: skip
    assert adjusted_p(x) == pytest.approx(theirs.pvalue, abs=0.012)


def test_more_samples_are_drawn_and_the_seed_decides():
    values = smooth(15, 4, 3)
    assert (adjusted_p(values, seed=1) == adjusted_p(values, seed=1)).all()
    assert (adjusted_p(values, seed=1) != adjusted_p(values, seed=2)).any()
    assert (adjusted_p(values + 50) == 1 / 10_000).all()  # the flip that is there is one of them
    np.testing.assert_allclose(adjusted_p(values[:14]), adjusted_p(values[:14], seed=5))


def test_other_columns_raise_p():
    one = smooth(12, 1, 4)[:, 0] + 2.2
    alone = float(adjusted_p(one))
    beside = adjusted_p(np.column_stack([one, smooth(12, 60, 5)]))[0]
    assert alone < 0.05 < beside
    # The same column again is no further test.
    assert adjusted_p(np.column_stack([one] * 9))[0] == alone


def test_scale_and_sign_change_nothing():
    values = smooth(9, 6, 6) + 1
    scales = np.array([1, -1, 1e-200, 1e200, 3, 0.1])
    np.testing.assert_allclose(adjusted_p(values * scales), adjusted_p(values))


def test_samples_that_a_column_lacks():
    values = smooth(9, 3, 7) + 1
    values[7:, 0] = math.nan
    p = adjusted_p(values)
    assert np.isfinite(p).all()
    values[4:, 0] = math.nan  # four are left: too few, and no matter for the others
    p = adjusted_p(values)
    assert math.isnan(p[0])
    np.testing.assert_array_equal(p[1:], adjusted_p(values[:, 1:]))
    assert np.isnan(adjusted_p(values[:5])).all()
    with pytest.raises(FlowjaxError, match="not finite"):
        adjusted_p(np.full((8, 2), math.inf))


def test_no_change_at_all_is_no_effect():
    assert (adjusted_p(np.zeros((8, 3))) == 1).all()


@pytest.mark.parametrize("block", [1, 50])
def test_blocks_change_nothing(block, monkeypatch):
    values = smooth(16, 4, 8) + 0.8
    few, many = adjusted_p(values[:8]), adjusted_p(values)
    monkeypatch.setattr(sign_flips, "BLOCK", block * 16)
    np.testing.assert_allclose(adjusted_p(values[:8]), few)
    np.testing.assert_allclose(adjusted_p(values), many, atol=0.02)  # drawn in other portions


@pytest.mark.parametrize("count", [6, 12, 30])
def test_nothing_is_called_an_effect_where_there_is_none(count):
    """40 windows, heavy tails, no effect: in at most 5% of runs is any p below 5%."""
    rng = np.random.default_rng(count)
    runs = [
        adjusted_p(smooth(count, 40, seed) ** 3 * rng.exponential(1, (count, 1)), draws=199)
        for seed in range(150)
    ]
    false = np.mean([run.min() < 0.05 for run in runs])
    assert false < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)
    # Were each window tested on its own, any of eight apart would be one far more often.
    every = [
        min(adjusted_p(smooth(count, 40, seed)[:, i], draws=199) for i in range(0, 40, 5)) < 0.05
        for seed in range(60)
    ]
    assert np.mean(every) > 0.12


def test_effects_are_found():
    found = [
        adjusted_p(smooth(12, 40, seed) + np.eye(40)[7] * 5, draws=499)[7] < 0.05
        for seed in range(40)
    ]
    assert np.mean(found) > 0.7


def test_two_groups_are_compared():
    rng = np.random.default_rng(3)
    group = np.arange(20) < 8
    values = rng.normal(size=(20, 3)) + np.outer(group, [0, 0, 3.0])
    p = adjusted_p_between(values, group)
    assert p[2] < 0.01
    assert (p[:2] > 0.1).all()
    one = adjusted_p_between(values[:, 1:2], group)
    theirs = scipy.stats.permutation_test(
        (values[group, 1], values[~group, 1]), lambda a, b: a.mean() - b.mean(), rng=1
    )
    assert one[0] == pytest.approx(theirs.pvalue, abs=0.02)
    assert np.isnan(adjusted_p_between(values, np.arange(20) < 5)).all()


def test_intervals_take_their_p():
    values = smooth(8, 2, 9) + np.array([9, 0])
    found = adjusted([Interval(8, 9.0, 7.0, 11.0), Interval(8, 0.0, -1.0, 1.0)], values)
    assert [at.p for at in found] == adjusted_p(values).tolist()
    assert [at.is_effect for at in found] == [True, False]
