import math

import numpy as np
import pyarrow as pa
import pytest

from flowjax.errors import FlowjaxError
from flowjax.report.curves import curves, strongest, strongest_table
from flowjax.report.sign_flips import adjusted_p
from tests.report.tables import sweep_table

EDGES = {"b-set": ["video->last", "last->last"], "a-set": ["video->question"]}


def wave(edge: str, sample: int, layer: int) -> float:
    return (len(edge) - 9) * (layer - 2) ** 2 - 7.0 * sample


def test_one_curve_for_every_edge_in_order():
    found = list(curves(sweep_table(EDGES, wave, samples=6)))
    assert [(curve.edge_set, curve.edge) for curve in found] == [
        ("b-set", "video->last"),
        ("b-set", "last->last"),
        ("a-set", "video->question"),
    ]
    for curve in found:
        assert curve.layer.tolist() == [1, 2, 3, 4, 5]  # counted from 1
        assert curve.samples == 6
        wanted = [np.mean([wave(curve.edge, s, layer) for s in range(6)]) for layer in range(5)]
        np.testing.assert_allclose(curve.mean, wanted)
        # Samples differ by the same at every layer, and so does the interval.
        np.testing.assert_allclose(curve.low - curve.mean, (curve.low - curve.mean)[0])
        assert (curve.low < curve.mean).all()
        assert (curve.mean < curve.high).all()


def test_order_of_rows_does_not_matter():
    table = sweep_table(EDGES, wave)
    mixed = table.take(np.random.default_rng(0).permutation(table.num_rows))
    by_edge = {curve.edge: curve for curve in curves(mixed)}
    for curve in curves(table):
        np.testing.assert_allclose(by_edge[curve.edge].mean, curve.mean)
        np.testing.assert_allclose(by_edge[curve.edge].low, curve.low)


def test_heads_are_separate():
    table = sweep_table({"set": ["video->last"]}, heads=(0, 3))
    assert [curve.label for curve in curves(table)] == ["video->last head 0", "video->last head 3"]


def test_edges_of_some_samples_only():
    """Single tokens are edges that another sample need not have."""
    both = sweep_table({"set": ["a->b"]}, samples=3)
    more = sweep_table({"set": ["c->b"]}, samples=1)
    found = {curve.edge: curve.samples for curve in curves(pa.concat_tables([both, more]))}
    assert found == {"a->b": 3, "c->b": 1}


def test_few_samples_have_no_band():
    (curve,) = curves(sweep_table({"set": ["a->b"]}, samples=5))
    assert curve.samples == 5
    assert np.isnan([curve.low, curve.high]).all()


def peaks_and_noise(edge: str, sample: int, layer: int) -> float:
    sign = 1 if sample % 2 else -1
    noise = 5.0 * sign if edge != "none->x" else 20.0 * sign * (layer + 1)
    return PEAKS[edge] * (layer == 3) + noise


PEAKS = {"up->x": 30.0, "down->x": -40.0, "none->x": 0.0}


def test_strongest_window_is_that_of_largest_size():
    table = sweep_table({"set": list(PEAKS)}, peaks_and_noise, samples=10)
    (found,) = strongest(table)
    rows = {row.edge: row for row in found}
    assert {edge: rows[edge].layer for edge in ("up->x", "down->x")} == {"up->x": 4, "down->x": 4}
    for edge in ("up->x", "down->x"):
        interval = rows[edge].interval
        assert interval.mean == pytest.approx(PEAKS[edge])
        assert interval.low < interval.mean < interval.high
        assert interval.is_effect
        # As it is, with all signs flipped, and the flips that make the noise of one sign.
        assert interval.p == 4 / 2**10
    assert not rows["none->x"].interval.is_effect


def test_all_windows_are_tested_together():
    """p is that of the largest of all windows of all edges of all tables."""
    tables = [
        sweep_table({"set": [edge]}, lambda e, s, at: np.sin(7 * s * s + at) + 0.9, samples=9)
        for edge in ("a->b", "longer->b")
    ]
    values = np.sin(7 * np.arange(9)[:, None] ** 2 + np.arange(5)) + 0.9
    p = adjusted_p(values)
    for (row,) in strongest(*tables):
        assert row.interval.p == p[row.layer - 1]
    other = sweep_table({"set": ["z->b"]}, lambda e, s, at: np.sin(3 * s * s + 5 * at), samples=9)
    (first,), (second,), (_,) = strongest(*tables, other)
    assert first.interval.p == second.interval.p > p[first.layer - 1]


def test_edges_of_other_samples_are_tested_beside():
    both = sweep_table({"set": ["a->b"]}, peaks_and_noise_of("down->x"), samples=9)
    few = sweep_table({"set": ["c->b"]}, lambda *_: -50.0, samples=5)
    ((every, some),) = strongest(pa.concat_tables([both, few]))
    assert every.interval.is_effect
    assert math.isnan(some.interval.p)
    assert strongest_table("title", few)[0].rows[0][-4:] == ["-50.0", "n < 6", "", "n < 6"]


def peaks_and_noise_of(name: str):
    return lambda _, sample, layer: peaks_and_noise(name, sample, layer)


def test_results_that_cannot_be_averaged():
    table = sweep_table({"set": ["a->b"]})
    with pytest.raises(FlowjaxError, match="no rows"):
        list(curves(table.slice(0, 0)))
    for missing in (0, 7):
        kept = np.delete(np.arange(table.num_rows), missing)
        with pytest.raises(FlowjaxError, match=r"edge 'a->b': sample .* has no result"):
            list(curves(table.take(kept)))
    for bad in (math.nan, math.inf):
        table = sweep_table(
            {"set": ["a->b"]}, lambda edge, s, layer, bad=bad: bad if (s, layer) == (2, 1) else 1.0
        )
        with pytest.raises(FlowjaxError, match=r"sample 's2' has no finite number .* centre 1"):
            list(curves(table))
