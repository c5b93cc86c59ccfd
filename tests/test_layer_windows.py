import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowjax.errors import FlowjaxError
from flowjax.layer_windows import window_layers, windows


@pytest.mark.parametrize(
    ("centre", "width", "style", "layers", "expected"),
    [
        (2, 1, "center", 6, [2]),
        (2, 3, "center", 6, [1, 2, 3]),
        (2, 4, "center", 6, [0, 1, 2, 3]),
        (0, 3, "center", 6, [0, 1]),
        (5, 3, "center", 6, [4, 5]),
        (2, 3, "inverse", 6, [0, 4, 5]),
        (2, 3, "top_down", 6, [2, 3, 4, 5]),
        (2, 3, "bottom_up", 6, [0, 1, 2]),
        (0, 99, "bottom_up", 6, [0]),
    ],
)
def test_windows(centre, width, style, layers, expected):
    assert list(window_layers(centre, width, style, layers)) == expected


@pytest.mark.parametrize(
    ("centre", "width", "style", "message"),
    [
        (6, 3, "center", "centre 6"),
        (-1, 3, "center", "centre -1"),
        (0, 0, "center", "width 0"),
        (0, 0, "top_down", "width 0"),
        (0, 7, "center", "only 6 layers"),
        (0, 3, "centre", "center, inverse"),
    ],
)
def test_a_window_outside_the_model_is_an_error(centre, width, style, message):
    with pytest.raises(FlowjaxError, match=message):
        window_layers(centre, width, style, 6)


@given(st.integers(1, 8), st.integers(1, 8))
def test_a_window_and_its_inverse_cover_the_model_once(width, layers):
    if width > layers:
        return
    inside, outside = windows(width, "center", layers), windows(width, "inverse", layers)
    for one, other in zip(inside, outside, strict=True):
        assert sorted(one + other) == list(range(layers))
        assert len(one) == min(width, layers) or one[0] == 0 or one[-1] == layers - 1
