"""Writing a checkpoint is the inverse of converting one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.models.checkpoint import load_model
from flowjax_convert.export import export_checkpoint, export_tensors
from flowjax_convert.run import convert
from tests.random_checkpoint import write_random_checkpoint


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_exported_checkpoint_converts_back(tmp_path, dtype):
    write_random_checkpoint(tmp_path / "made", ["what is it? red blue"])
    path = tmp_path / "made" / "config.json"
    path.write_text(json.dumps(read_json(path) | {"vision_feature_layer": -1}))
    convert(tmp_path / "made", tmp_path / "first")
    model = load_model(tmp_path / "first", dtype=dtype).model
    (tmp_path / "again").mkdir()
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (tmp_path / "again" / name).write_bytes((tmp_path / "made" / name).read_bytes())
    export_checkpoint(model, read_json(tmp_path / "made" / "config.json"), tmp_path / "again")
    convert(tmp_path / "again", tmp_path / "second")
    back = load_model(tmp_path / "second").model
    assert back.dtype == dtype
    jax.tree.map(np.testing.assert_array_equal, nnx.state(back), nnx.state(model))
    fields = json.loads((tmp_path / "again" / "config.json").read_text())
    assert fields == read_json(tmp_path / "made" / "config.json")


def test_what_a_model_does_not_hold_cannot_be_written(tmp_path):
    write_random_checkpoint(tmp_path / "made", ["what is it?"])
    convert(tmp_path / "made", tmp_path / "model")
    model = load_model(tmp_path / "model").model
    with pytest.raises(FlowjaxError, match=r"has 3 layers in the checkpoint, of which .* holds 2"):
        export_tensors(model, read_json(tmp_path / "made" / "config.json"))
