import pytest

from flowjax.errors import FlowjaxError
from flowjax.planning.hardware import Slice


@pytest.mark.parametrize(
    "text, devices", [("v5e:4x4", 16), ("v5p:2x2x4", 16), ("v6e:2x4", 8), ("h200x8", 8)]
)
def test_slices(text, devices):
    found = Slice.parse(text)
    assert str(found) == text and found.devices == devices


@pytest.mark.parametrize(
    "text", ["v5e", "v5e:4x", "v5e:3x3", "v9e:4x4", "h100", "h100x16", "a100x8"]
)
def test_what_cannot_be_rented(text):
    with pytest.raises(FlowjaxError, match="--on"):
        Slice.parse(text)


def test_larger_slices():
    assert [str(each) for each in Slice.parse("v5p:2x2x2").larger()] == [
        "v5p:2x2x4",
        "v5p:2x4x4",
        "v5p:4x4x4",
    ]
    assert [str(each) for each in Slice.parse("h100x2").larger()] == ["h100x4", "h100x8"]
