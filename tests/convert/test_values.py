"""Every parameter has the bits of its tensors; the expectation is written out by hand."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model, parameters_digest, read_manifest
from flowjax.version import __version__
from flowjax_convert.run import SIDE_FILES, convert
from tests.convert.checkpoints import edit_json, numpy_tensors, shard, tensors_of, write_file

TEXT = "language_model.model.layers."
VISION = "vision_tower.vision_model."
DECODER_KEYS = {
    "attention_norm/scale": "input_layernorm.weight",
    "query/kernel": "self_attn.q_proj.weight",
    "key/kernel": "self_attn.k_proj.weight",
    "value/kernel": "self_attn.v_proj.weight",
    "output/kernel": "self_attn.o_proj.weight",
    "mlp_norm/scale": "post_attention_layernorm.weight",
    "gate/kernel": "mlp.gate_proj.weight",
    "up/kernel": "mlp.up_proj.weight",
    "down/kernel": "mlp.down_proj.weight",
}
VISION_KEYS = {
    "attention_norm/scale": "layer_norm1.weight",
    "attention_norm/bias": "layer_norm1.bias",
    "mlp_norm/scale": "layer_norm2.weight",
    "mlp_norm/bias": "layer_norm2.bias",
    "query/kernel": "self_attn.q_proj.weight",
    "query/bias": "self_attn.q_proj.bias",
    "key/kernel": "self_attn.k_proj.weight",
    "key/bias": "self_attn.k_proj.bias",
    "value/kernel": "self_attn.v_proj.weight",
    "value/bias": "self_attn.v_proj.bias",
    "output/kernel": "self_attn.out_proj.weight",
    "output/bias": "self_attn.out_proj.bias",
    "up/kernel": "mlp.fc1.weight",
    "up/bias": "mlp.fc1.bias",
    "down/kernel": "mlp.fc2.weight",
    "down/bias": "mlp.fc2.bias",
}


def expected(tensors, config) -> dict[str, np.ndarray]:
    """Every parameter from the tensors by their Hugging Face names."""

    def stack(pattern, layers, name):
        parts = [tensors[pattern.format(layer)] for layer in range(layers)]
        return np.stack([part.T if name.endswith("kernel") else part for part in parts])

    layers = config["text_config"]["num_hidden_layers"]
    features = config["vision_config"]["num_hidden_layers"] - 1  # feature layer -2
    patches = tensors[VISION + "embeddings.patch_embedding.weight"]
    parameters = {
        "decoder/embedding/embedding": tensors["language_model.model.embed_tokens.weight"],
        "decoder/norm/scale": tensors["language_model.model.norm.weight"],
        "decoder/unembedding/kernel": tensors["language_model.lm_head.weight"].T,
        "projector/linear_1/kernel": tensors["multi_modal_projector.linear_1.weight"].T,
        "projector/linear_1/bias": tensors["multi_modal_projector.linear_1.bias"],
        "projector/linear_2/kernel": tensors["multi_modal_projector.linear_2.weight"].T,
        "projector/linear_2/bias": tensors["multi_modal_projector.linear_2.bias"],
        "vision/class_embedding": tensors[VISION + "embeddings.class_embedding"],
        "vision/position_embedding": tensors[VISION + "embeddings.position_embedding.weight"],
        "vision/patch_embedding/kernel": np.einsum("wcij->cijw", patches).reshape(-1, len(patches)),
        "vision/input_norm/scale": tensors[VISION + "pre_layrnorm.weight"],
        "vision/input_norm/bias": tensors[VISION + "pre_layrnorm.bias"],
    }
    for name, key in DECODER_KEYS.items():
        parameters[f"decoder/layers/{name}"] = stack(TEXT + "{}." + key, layers, name)
    for name, key in VISION_KEYS.items():
        pattern = VISION + "encoder.layers.{}." + key
        parameters[f"vision/layers/{name}"] = stack(pattern, features, name)
    return parameters


def flat(tree) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}


def parameters_of(path, **options) -> dict[str, np.ndarray]:
    return flat(nnx.to_pure_dict(nnx.state(load_model(path, **options).model)))


def assert_same_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype, name
        assert found[name].shape == wanted[name].shape, name
        assert found[name].tobytes() == np.ascontiguousarray(wanted[name]).tobytes(), name


@pytest.mark.parametrize("checkpoint", ["tiny", "pllava_oracle"])
def test_every_parameter_has_the_bits_of_its_tensors(checkpoint, request, tmp_path):
    src = request.getfixturevalue(checkpoint)
    config = json.loads((src / "config.json").read_text())
    report = convert(src, tmp_path / "out")
    wanted = expected(numpy_tensors(src / "model.safetensors"), config)
    assert_same_bits(parameters_of(tmp_path / "out"), wanted)
    assert report.parameters == sum(value.size for value in wanted.values())
    assert report.bytes == 4 * report.parameters
    keys = tensors_of(src / "model.safetensors").keys()
    assert report.tensors + len(report.ignored) == len(keys)
    assert all(".2." in key or ".3." in key or "post_layernorm" in key for key in report.ignored)


def test_stock_orbax_restores_it(tiny, tiny_config, converted):
    wanted = expected(numpy_tensors(tiny / "model.safetensors"), tiny_config)
    with ocp.StandardCheckpointer() as checkpointer:
        assert_same_bits(flat(checkpointer.restore(converted / "params")), wanted)
    with ocp.PyTreeCheckpointer() as checkpointer:
        assert_same_bits(flat(checkpointer.restore(converted / "params")), wanted)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("parts", [1, 3])
def test_sharded_equals_single_file(tiny, converted, tmp_path, parts, index):
    convert(shard(tiny, tmp_path / "sharded", parts, index=index), tmp_path / "out")
    assert_same_bits(parameters_of(tmp_path / "out"), parameters_of(converted))


def in_dtype(tiny, out, dtype) -> dict[str, np.ndarray]:
    """A copy of the checkpoint in another dtype; returns its tensors."""
    names = {"BF16": ml_dtypes.bfloat16, "F16": np.float16}
    tensors = numpy_tensors(tiny / "model.safetensors")
    cast = {key: tensor.astype(names[dtype]) for key, tensor in tensors.items()}
    out.mkdir()
    for file in tiny.glob("*.json"):
        (out / file.name).write_bytes(file.read_bytes())
    write_file(
        out / "model.safetensors",
        {key: (dtype, list(tensor.shape), tensor.tobytes()) for key, tensor in cast.items()},
    )
    return cast


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_half_precision_keeps_its_bits(tiny, tiny_config, tmp_path, dtype):
    tensors = in_dtype(tiny, tmp_path / "half", dtype)
    convert(tmp_path / "half", tmp_path / "out")
    assert_same_bits(parameters_of(tmp_path / "out"), expected(tensors, tiny_config))


def test_special_values_keep_their_bits(tiny, tiny_config, tmp_path, source):
    tensors = in_dtype(tiny, tmp_path / "half", "BF16")
    key = TEXT + "1.mlp.up_proj.weight"
    bits = np.arange(tensors[key].size, dtype=np.uint32) * 7 % 65536  # NaNs, -0, infinities too
    tensors[key] = bits.astype(np.uint16).view(ml_dtypes.bfloat16).reshape(tensors[key].shape)
    tensors["language_model.model.norm.weight"] = tensors["language_model.model.norm.weight"] * 0
    write_file(
        tmp_path / "half" / "model.safetensors",
        {key: ("BF16", list(tensor.shape), tensor.tobytes()) for key, tensor in tensors.items()},
    )
    convert(tmp_path / "half", tmp_path / "out")
    assert_same_bits(parameters_of(tmp_path / "out"), expected(tensors, tiny_config))


def test_dtype_rounds_to_nearest_even(tiny, tiny_config, tmp_path):
    convert(tiny, tmp_path / "out", dtype="bfloat16")
    tensors = numpy_tensors(tiny / "model.safetensors")
    for key, tensor in tensors.items():
        bits = tensor.view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        tensors[key] = rounded.astype(np.uint16).view(ml_dtypes.bfloat16)
    assert_same_bits(parameters_of(tmp_path / "out"), expected(tensors, tiny_config))


def test_dtype_float32_widens_exactly(tiny, tiny_config, tmp_path):
    tensors = in_dtype(tiny, tmp_path / "half", "BF16")
    convert(tmp_path / "half", tmp_path / "out", dtype="float32")
    wide = {key: tensor.astype(np.float32) for key, tensor in tensors.items()}
    assert_same_bits(parameters_of(tmp_path / "out"), expected(wide, tiny_config))


def test_tensors_keep_different_dtypes(tiny, tiny_config, tmp_path):
    half = in_dtype(tiny, tmp_path / "mixed", "BF16")
    whole = numpy_tensors(tiny / "model.safetensors")
    mixed = {key: whole[key] if "norm" in key else half[key] for key in whole}
    names = {np.dtype(np.float32): "F32", np.dtype(ml_dtypes.bfloat16): "BF16"}
    write_file(
        tmp_path / "mixed" / "model.safetensors",
        {key: (names[x.dtype], list(x.shape), x.tobytes()) for key, x in mixed.items()},
    )
    convert(tmp_path / "mixed", tmp_path / "out")
    assert_same_bits(parameters_of(tmp_path / "out"), expected(mixed, tiny_config))
    assert load_model(tmp_path / "out").model.dtype == jnp.bfloat16
    dtypes = read_manifest(tmp_path / "out").dtype
    assert dtypes["decoder/norm/scale"] == "float32"
    assert dtypes["decoder/layers/query/kernel"] == "bfloat16"


def test_load_casts_only_when_asked(converted):
    plain, cast = parameters_of(converted), parameters_of(converted, dtype=jnp.bfloat16)
    wanted = {name: value.astype(ml_dtypes.bfloat16) for name, value in plain.items()}
    assert_same_bits(cast, wanted)


def test_pooling_shape_replaces_the_configuration_s(tiny, tmp_path):
    report = convert(tiny, tmp_path / "out", pooling_shape=(2, 4, 1))
    loaded = load_model(report.out)
    assert (loaded.config.frames, loaded.config.tokens_per_frame) == (2, 4)
    config = json.loads((report.out / "config.json").read_text())
    original = json.loads((tiny / "config.json").read_text())
    assert config == original | {"pooling_shape": [2, 4, 1], "num_frames": 2}
    assert read_manifest(report.out).overrides == {"pooling_shape": [2, 4, 1]}


def test_side_files_are_kept_as_they_are(tiny, converted):
    names = {name for name in SIDE_FILES if (tiny / name).exists()}
    assert {"tokenizer.json", "preprocessor_config.json", "special_tokens_map.json"} <= names
    for name in names:
        assert (converted / name).read_bytes() == (tiny / name).read_bytes()
    assert {path.name for path in converted.iterdir()} == names | {"flowjax.json", "params"}


def test_manifest_says_what_was_done(tiny, tmp_path):
    convert(tiny, tmp_path / "out", note="random weights", dtype="bfloat16")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.digest == parameters_digest(tmp_path / "out" / "params")
    unsaid = {"dtype": None, "parameters": None, "digest": None}
    assert dataclasses.asdict(manifest) | unsaid == {
        "format": 1,
        "family": "pllava",
        "name": "checkpoint",
        "source": str(tiny),
        "note": "random weights",
        "flowjax_version": __version__,
        "overrides": {"dtype": "bfloat16"},
        "parameters": None,
        "dtype": None,
        "digest": None,
    }
    loaded = load_model(tmp_path / "out")
    assert (loaded.name, loaded.note) == ("checkpoint", "random weights")
    assert loaded.family.name == "pllava"
    assert loaded.tokenizer.token_to_id("<image>") == loaded.config.placeholder
    assert loaded.preprocess(np.zeros((4, 30, 40, 3), np.uint8)).shape == (4, 3, 28, 28)


def test_tied_embeddings(source, tmp_path, tiny_config):
    tensors = tensors_of(source / "model.safetensors")
    head, embedding = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    edit_json(
        source / "config.json",
        lambda fields: fields["text_config"].update(tie_word_embeddings=True),
    )
    (source / "model.safetensors").unlink()
    write_file(source / "model.safetensors", tensors | {head: tensors[embedding]})
    report = convert(source, tmp_path / "both")
    assert head in report.ignored
    del tensors[head]
    write_file(source / "model.safetensors", tensors)
    assert head not in convert(source, tmp_path / "one").ignored
    parameters = parameters_of(tmp_path / "one")
    assert_same_bits(parameters, parameters_of(tmp_path / "both"))
    assert "decoder/unembedding/kernel" not in parameters
    other = (tensors[embedding][0], tensors[embedding][1], tensors[embedding][2][::-1])
    write_file(source / "model.safetensors", tensors | {head: other})
    with pytest.raises(FlowjaxError, match=r"lm_head\.weight differs from .*embed_tokens"):
        convert(source, tmp_path / "wrong")
