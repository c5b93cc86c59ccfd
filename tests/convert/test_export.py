"""Writing a checkpoint is the inverse of converting one."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.models.checkpoint import load_model
from flowjax.models.families import internvl
from flowjax.models.video_llm import parameter_shapes
from flowjax_convert import export as exporting
from flowjax_convert.export import export, export_checkpoint, export_tensors
from flowjax_convert.inverse import Inverse
from flowjax_convert.mapping import table_of
from flowjax_convert.plan import make_plan
from flowjax_convert.run import convert
from tests.convert.checkpoints import tensors_of
from tests.convert.test_writers import Made
from tests.models.test_internvl import CASES, fields_of
from tests.random_checkpoint import write_random_checkpoint

ORACLE = Path(__file__).parents[1] / "oracle" / "data"


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
    said = "has 3 layers in the checkpoint, of which the model holds 2; give --like"
    with pytest.raises(FlowjaxError, match=said):
        export_tensors(model, read_json(tmp_path / "made" / "config.json"))
    with pytest.raises(FlowjaxError, match=said):
        export(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["pllava", "internvl", "videollama3"])
def test_a_converted_checkpoint_is_exported_bit_for_bit(tmp_path, monkeypatch, family):
    """Those that the published implementation was recorded with; in several files."""
    monkeypatch.setattr(exporting, "SHARD", 2**16)
    convert(ORACLE / family, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", like=ORACLE / family)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 1
    written = {key: value for file in files for key, value in tensors_of(file).items()}
    assert written == tensors_of(ORACLE / family / "model.safetensors")
    convert(tmp_path / "out", tmp_path / "again")
    one, two = (read_json(tmp_path / name / "flowjax.json") for name in ("model", "again"))
    assert one["digest"] == two["digest"]


@pytest.mark.parametrize("case", [name for name in CASES if "internlm2" in name])
def test_fused_projections_in_groups_are_put_together_again(case):
    fields = fields_of(*CASES[case][:3])
    config = internvl.read_config(fields, "config.json")
    table, shapes = table_of(config, fields), parameter_shapes(config)
    rng = np.random.default_rng(0)
    parameters = {path: rng.standard_normal(shape).astype("f") for path, shape in shapes.items()}

    def part(path, layer):
        return parameters[path] if layer is None else parameters[path][layer]

    inverse = Inverse(table, config, shapes, np.dtype("f"), dict.fromkeys(shapes, 4))
    source = Made({one.key: one.make() for one in inverse.tensors(part)})
    for parameter in make_plan(source, table, shapes, None).parameters:
        for index in range(len(parameter.keys)):
            expected = part(parameter.path, index if parameter.stacked else None)
            np.testing.assert_array_equal(parameter.values(source, index), expected)


def test_a_folder_that_export_did_not_write_stays(tmp_path):
    convert(ORACLE / "pllava", tmp_path / "model")
    shutil.copytree(ORACLE / "pllava", tmp_path / "theirs")
    before = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    for overwrite, said in ((False, "already exists"), (True, "was not written by")):
        with pytest.raises(FlowjaxError, match=said):
            export(
                tmp_path / "model", tmp_path / "theirs", like=ORACLE / "pllava",
                overwrite=overwrite,
            )  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == before
    for overwrite in (False, True):
        export(tmp_path / "model", tmp_path / "ours", like=ORACLE / "pllava", overwrite=overwrite)
