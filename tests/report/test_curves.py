import math

import numpy as np
import pyarrow as pa
import pytest

from flowjax.errors import FlowjaxError
from flowjax.report.curves import curves, strongest
from tests.report.tables import sweep_table

EDGES = {"b-set": ["video->last", "last->last"], "a-set": ["video->question"]}


def wave(edge: str, sample: int, layer: int) -> float:
    return (len(edge) - 9) * (layer - 2) ** 2 - 7.0 * sample


def test_one_curve_for_every_edge_in_order():
    found = list(curves(sweep_table(EDGES, wave)))
    assert [(curve.edge_set, curve.edge) for curve in found] == [
        ("b-set", "video->last"),
        ("b-set", "last->last"),
        ("a-set", "video->question"),
    ]
    for curve in found:
        assert curve.layer.tolist() == [1, 2, 3, 4, 5]  # counted from 1
        assert curve.samples == 4
        wanted = [np.mean([wave(curve.edge, s, layer) for s in range(4)]) for layer in range(5)]
        np.testing.assert_allclose(curve.mean, wanted)
        # Samples differ by the same at every layer, and so does the interval.
        np.testing.assert_allclose(curve.low - curve.mean, (curve.low - curve.mean)[0])
        assert (curve.low < curve.mean).all()
        assert (curve.mean < curve.high).all()
        assert (curve.high - curve.low <= 21).all()


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


def test_one_sample_has_no_band():
    (curve,) = curves(sweep_table({"set": ["a->b"]}, samples=1))
    assert curve.samples == 1
    np.testing.assert_array_equal(curve.low, curve.mean)
    np.testing.assert_array_equal(curve.high, curve.mean)


def test_strongest_window_is_that_of_largest_size():
    peaks = {"up->x": 30.0, "down->x": -40.0, "none->x": 0.0}

    def change(edge: str, sample: int, layer: int) -> float:
        sign = 1 if sample % 2 else -1
        noise = 5.0 * sign if edge != "none->x" else 20.0 * sign * (layer + 1)
        return peaks[edge] * (layer == 3) + noise

    rows = {row.edge: row for row in strongest(sweep_table({"set": list(peaks)}, change))}
    assert {edge: rows[edge].layer for edge in ("up->x", "down->x")} == {"up->x": 4, "down->x": 4}
    for edge in ("up->x", "down->x"):
        interval = rows[edge].interval
        assert interval.mean == pytest.approx(peaks[edge])
        assert interval.low < interval.mean < interval.high
        assert interval.excludes_zero
    assert not rows["none->x"].interval.excludes_zero


def test_one_sample_excludes_nothing():
    (row,) = strongest(sweep_table({"set": ["a->b"]}, lambda *_: -50.0, samples=1))
    assert (row.interval.n, row.interval.mean) == (1, -50)
    assert not row.interval.excludes_zero


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
