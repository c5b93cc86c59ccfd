"""Guarantees, in simulation: what a chosen setting really loses is known there."""

import numpy as np
import pytest
from scipy import stats

from flowjax.errors import FlowjaxError
from flowjax.report.risk_control import binomial_p, conformal_risk_control, learn_then_test

DRAWS, SAMPLES, LEVEL, DELTA = 500, 100, 0.05, 0.05
LOSS = np.linspace(0, 0.15, 31)
"""Chance that an answer is lost, by setting."""


def losses(rng, *, nested):
    """What happens to some samples; nested: what is lost at one setting is at all later ones."""
    luck = rng.uniform(size=(SAMPLES, 1 if nested else len(LOSS)))
    return luck < LOSS


def chosen_losses(rule, *, nested=True):
    """The true loss of the setting that is chosen in each draw."""
    rng = np.random.default_rng(0)
    return np.array([LOSS[rule(losses(rng, nested=nested))] for _ in range(DRAWS)])


@pytest.mark.parametrize("nested", [True, False])
def test_learn_then_test_is_above_its_level_in_few_draws(nested):
    found = chosen_losses(lambda lost: learn_then_test(lost, LEVEL, DELTA), nested=nested)
    assert (found > LEVEL).mean() <= DELTA
    assert found.mean() > LEVEL / 5, "it is not so careful as to save nothing"


def test_conformal_risk_control_holds_in_the_mean_and_not_in_each_draw():
    found = chosen_losses(lambda lost: conformal_risk_control(lost, LEVEL))
    assert found.mean() <= LEVEL
    assert found.mean() > 0.8 * LEVEL
    assert (found > LEVEL).mean() > 4 * DELTA


def test_without_a_correction_more_than_the_level_is_lost():
    def naive(lost):
        return int(np.flatnonzero(lost.mean(axis=0) <= LEVEL)[-1])

    assert chosen_losses(naive).mean() > LEVEL


@pytest.mark.parametrize(("samples", "level"), [(5, 0.3), (149, 0.02), (2000, 0.1)])
def test_p_is_the_binomial_tail(samples, level):
    count = np.arange(samples + 1)
    expected = stats.binom.cdf(count, samples, level)
    np.testing.assert_allclose(binomial_p(count, samples, level), expected, rtol=1e-9, atol=1e-15)


def test_settings_by_hand():
    lost = np.zeros((19, 4), bool)
    lost[0, 1] = lost[:2, 3] = True
    # (k + 1) / 20: 0.05, 0.1, 0.1 as the lost one stays lost, 0.15.
    assert conformal_risk_control(lost, 0.1) == 2
    assert conformal_risk_control(lost, 0.09) == 0
    assert conformal_risk_control(lost, 0.15) == 3
    # 0.7 ** 19 and 0.7 ** 19 + 19 * 0.3 * 0.7 ** 18.
    assert learn_then_test(lost, 0.3, 0.0012) == 0
    assert learn_then_test(lost, 0.3, 0.02) == 2
    assert learn_then_test(lost, 0.3, 0.05) == 3


def test_too_few_samples_save_nothing():
    assert learn_then_test(np.zeros((148, 3), bool), 0.02, 0.05) == 0
    assert learn_then_test(np.zeros((149, 3), bool), 0.02, 0.05) == 2
    assert conformal_risk_control(np.zeros((48, 3), bool), 0.02) == 0


def test_what_cannot_be_is_refused():
    none, some = np.zeros((0, 2), bool), np.zeros((3, 2), bool)
    with pytest.raises(FlowjaxError, match="no samples"):
        conformal_risk_control(none, 0.1)
    with pytest.raises(FlowjaxError, match="level 0: it must be above 0"):
        learn_then_test(some, 0, 0.1)
    with pytest.raises(FlowjaxError, match=r"delta 1\.0"):
        learn_then_test(some, 0.1, 1.0)
