import math

import numpy as np
import pytest

from flowjax.efficiency.front import Costed, at_level, front_band


def costed(method, flops, right, setting="one"):
    return Costed(method, setting, flops, flops, math.nan, np.asarray(right, bool))


RIGHT = np.arange(40) < 30
"""What everything answers."""

SETTINGS = [
    costed("full", 1.0, RIGHT),
    costed("found", 0.6, RIGHT, "dear"),
    costed("found", 0.2, RIGHT & (np.arange(40) >= 10), "cheap"),
    costed("frames", 0.8, RIGHT, "many"),
    costed("frames", 0.45, ~RIGHT, "few"),
    costed("random_edges", 0.99, RIGHT),
]


def test_a_method_between_two_settings_is_mixed_of_both():
    level = at_level(SETTINGS, 0.5)
    found, frames = level.of
    assert (found.method, found.setting) == ("found", "25% cheap, 75% dear")
    assert found.accuracy.mean == pytest.approx((0.25 * 20 + 0.75 * 30) / 40)
    assert found.change.mean == pytest.approx(-0.25 * 10 / 40)
    assert found.behind is None and level.reference == "found"
    weight = (0.5 - 0.45) / (0.8 - 0.45)
    assert frames.accuracy.mean == pytest.approx((1 - weight) * 0.25 + weight * 0.75)
    assert frames.behind is not None
    assert frames.behind.mean == pytest.approx(found.accuracy.mean - frames.accuracy.mean)
    assert frames.behind.is_effect
    assert level.missing == ("random_edges",)
    assert level.tested == 3


def test_a_method_that_is_cheaper_is_taken_as_it_is():
    (found, frames) = at_level(SETTINGS, 0.7).of
    assert found.setting == "dear" and found.change.mean == 0
    assert frames.setting.startswith("29% few")


def test_nothing_is_so_cheap():
    level = at_level(SETTINGS, 0.1)
    assert not level.of and level.reference is None
    assert level.missing == ("found", "frames", "random_edges")


def test_the_front_never_falls_and_its_band_holds_it():
    band = front_band(SETTINGS)
    np.testing.assert_allclose(band.flops, [0.2, 0.45, 0.6, 0.8, 0.99, 1.0])
    np.testing.assert_allclose(band.best, [0.5, 0.5, 0.75, 0.75, 0.75, 0.75])
    assert (np.diff(band.low) >= 0).all()
    assert (band.low <= band.best).all() and (band.best <= band.high).all()
    assert band.low[0] < 0.45 and band.high[0] > 0.55
