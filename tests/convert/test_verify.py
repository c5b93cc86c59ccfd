"""Any difference between a model and its checkpoint is found and named."""

import shutil

import numpy as np
import pytest

from flowjax.errors import FlowjaxError
from flowjax_convert.run import convert
from flowjax_convert.verify import verify
from tests.convert.checkpoints import edit_json, rewrite, tensors_of, write_file

KEY = "language_model.model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def model(converted, tmp_path):
    return shutil.copytree(converted, tmp_path / "model")


def test_a_right_conversion(tiny, converted):
    report = verify(tiny, converted)
    assert report.differences == ()
    assert report.cast is None
    kept = {result.key for result in report.tensors}
    assert KEY in kept and "vision_tower.vision_model.encoder.layers.2.mlp.fc1.bias" not in kept
    tensors = tensors_of(tiny / "model.safetensors")
    assert report.parameters == sum(len(tensors[key][2]) // 4 for key in kept)


@pytest.mark.parametrize(
    "options", [{"dtype": "bfloat16"}, {"pooling_shape": (2, 2, 2)}, {"dtype": "float32"}]
)
def test_options_of_the_conversion_are_taken_into_account(tiny, tmp_path, options):
    convert(tiny, tmp_path / "out", **options)
    report = verify(tiny, tmp_path / "out")
    assert report.differences == ()
    assert report.cast == options.get("dtype")


def test_one_changed_bit_is_found_in_every_tensor(tiny, source, converted):
    weights = source / "model.safetensors"
    tensors = tensors_of(weights)
    verified = verify(tiny, converted).tensors
    for result in verified:
        dtype, shape, content = tensors[result.key]
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        tensors[result.key] = (dtype, shape, bytes(changed))
    replace(weights, tensors)
    differences = verify(source, converted).differences
    for result, difference in zip(verified, differences, strict=True):
        size = np.prod(tensors[result.key][1])
        assert difference.startswith(f"{result.key}: 1 of {size} elements differ")


def replace(path, tensors):
    """Write a new file, so that the one linked here keeps its content."""
    path.unlink()
    write_file(path, tensors)


def test_negative_zero_is_not_zero(source, converted, tmp_path):
    weights = source / "model.safetensors"
    tensors = tensors_of(weights)
    dtype, shape, content = tensors[KEY]
    replace(weights, tensors | {KEY: (dtype, shape, bytes(len(content)))})
    convert(source, tmp_path / "out")
    negative = np.full(shape, -0.0, np.float32).tobytes()
    rewrite(weights, lambda tensors: tensors.update({KEY: (dtype, shape, negative)}))
    (difference,) = verify(source, tmp_path / "out").differences
    assert difference.startswith(KEY)


def test_a_changed_block_is_named(tiny, model):
    chunk = model / "params" / "decoder.layers.down.kernel" / "1.0.0"
    content = bytearray(chunk.read_bytes())
    content[7] ^= 0x80
    chunk.write_bytes(content)
    (difference,) = verify(tiny, model).differences
    assert difference.startswith(KEY)
    assert difference.endswith("(parameter decoder/layers/down/kernel[1])")


@pytest.mark.parametrize("damage", ["remove", "truncate"])
def test_a_missing_block_is_named(tiny, model, damage):
    chunk = model / "params" / "decoder.layers.down.kernel" / "1.0.0"
    if damage == "remove":
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:-4])
    (difference,) = verify(tiny, model).differences
    assert difference.startswith(f"{KEY}: not readable")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_changed_side_file_is_named(tiny, model, name):
    edit_json(model / name, lambda fields: fields.update(extra=1))
    assert verify(tiny, model).differences == (f"{name}: differs",)
    (model / name).unlink()
    assert verify(tiny, model).differences == (f"{name}: missing from {model}",)


def test_another_model(pllava_oracle, converted):
    with pytest.raises(FlowjaxError, match=r"parameter .* shape"):
        verify(pllava_oracle, converted)


def test_a_wrong_count_is_found(tiny, model):
    edit_json(model / "flowjax.json", lambda fields: fields.update(parameters=3))
    with pytest.raises(FlowjaxError, match="parameters is 3"):
        verify(tiny, model)
