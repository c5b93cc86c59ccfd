import jax
import pytest

from flowjax.errors import FlowjaxError
from flowjax.mesh import MeshShape


@pytest.mark.parametrize(
    "text, devices, shape",
    [
        ("data=4,model=2", 8, (4, 2)),
        ("model=2, data=4", 8, (4, 2)),
        ("model=8", 16, (2, 8)),
        ("data=4", 4, (4, 1)),
        ("4x2", 8, (4, 2)),
    ],
)
def test_what_a_mesh_says(text, devices, shape):
    whole = MeshShape.parse(text).over(devices)
    assert (whole.data, whole.model) == shape
    assert MeshShape.parse(str(whole)) == whole


@pytest.mark.parametrize(
    "text", ["", "4", "data=0", "data=4,data=4", "rows=4", "4x", "data=4;model=2", "data=-1"]
)
def test_what_is_no_mesh(text):
    with pytest.raises(FlowjaxError, match=r"--mesh .*write data=4,model=2"):
        MeshShape.parse(text)


@pytest.mark.parametrize("text, devices", [("data=4,model=2", 4), ("model=3", 8), ("model=8", 4)])
def test_another_number_of_devices(text, devices):
    with pytest.raises(FlowjaxError, match=f"there are {devices} devices"):
        MeshShape.parse(text).over(devices)


def test_one_device():
    mesh = MeshShape(None).mesh(jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "model": 1}
