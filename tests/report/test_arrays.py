import numpy as np
import pyarrow as pa
import pytest

from flowjax.errors import FlowjaxError
from flowjax.report.arrays import by_sample

ROWS = [
    {
        "sample_id": sample,
        "layer": layer,
        "normed": normed,
        "value": 100.0 * s + 10 * layer + normed,
    }
    for s, sample in enumerate(["z", "a", "m"])
    for layer in (4, 2, 9)
    for normed in (False, True)
]


def test_any_order_of_rows_gives_samples_and_axes_ascending():
    mixed = [ROWS[0], *[ROWS[i] for i in np.random.default_rng(0).permutation(range(1, len(ROWS)))]]
    found = by_sample(pa.Table.from_pylist(mixed), "value", "normed", "layer")
    assert found.axes == ((False, True), (2, 4, 9))
    assert found.samples == ("a", "m", "z")
    assert found.values.shape == (3, 2, 3)
    for row in ROWS:
        at = found.samples.index(row["sample_id"]), row["normed"], (2, 4, 9).index(row["layer"])
        assert found.values[tuple(map(int, at))] == row["value"]


def test_what_is_missing_is_named():
    table = pa.Table.from_pylist([row for i, row in enumerate(ROWS) if i != 9])
    with pytest.raises(FlowjaxError, match="'a' has no result in value for normed True, layer 2"):
        by_sample(table, "value", "normed", "layer")
    with pytest.raises(FlowjaxError, match="no rows"):
        by_sample(table.slice(0, 0), "value", "layer")
    bad = [{**row, "value": np.inf} if i == 4 else row for i, row in enumerate(ROWS)]
    with pytest.raises(FlowjaxError, match=r"'z' has no finite number in value for .*layer 9"):
        by_sample(pa.Table.from_pylist(bad), "value", "normed", "layer")
