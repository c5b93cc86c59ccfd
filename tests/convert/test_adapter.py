"""LoRA adapters merged at conversion, against the formula computed with PyTorch."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from flowjax.cli import app
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model, read_manifest
from flowjax_benchmarks.synthetic import write_checkpoint
from flowjax_convert.adapter_config import AdapterConfig
from flowjax_convert.run import convert
from flowjax_convert.verify import verify
from tests.convert.checkpoints import edit_json

CONFIG = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "somewhere/else",
    "bias": "none",
    "corda_config": None,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 10,
    "lora_bias": False,
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 4,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["q_proj", "down_proj", "linear_1", "fc1", "lm_head"],
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_rslora": False,
}
"""As PEFT 0.15 writes it."""

LAYERS = "language_model.model.layers."
MODULES = (
    *(f"{LAYERS}{layer}.self_attn.q_proj" for layer in range(3)),
    f"{LAYERS}1.mlp.down_proj",
    "multi_modal_projector.linear_1",
    "vision_tower.vision_model.encoder.layers.0.mlp.fc1",
    "language_model.lm_head",
)
"""Not every layer has every adapter."""

TARGETS = {
    f"{LAYERS}0.self_attn.q_proj": lambda model: model.decoder.layers.query.kernel[0],
    f"{LAYERS}1.self_attn.q_proj": lambda model: model.decoder.layers.query.kernel[1],
    f"{LAYERS}2.self_attn.q_proj": lambda model: model.decoder.layers.query.kernel[2],
    f"{LAYERS}1.mlp.down_proj": lambda model: model.decoder.layers.down.kernel[1],
    "multi_modal_projector.linear_1": lambda model: model.projector.linear_1.kernel[...],
    MODULES[5]: lambda model: model.vision.layers.up.kernel[0],
    "language_model.lm_head": lambda model: model.decoder.unembedding.kernel[...],
}


@pytest.fixture(scope="module")
def half(tmp_path_factory, tiny_config, pllava_oracle) -> Path:
    """A random bfloat16 checkpoint."""
    path = tmp_path_factory.mktemp("half") / "base"
    write_checkpoint(path, tiny_config, side_files=pllava_oracle, dtype="BF16")
    return path


def write_adapter(folder, base, *, dtype=torch.float32, spell=str, ranks=None, **config):
    """A random adapter for `MODULES` of the checkpoint `base`; ranks: by module, 4 elsewhere."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    weights = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for module in MODULES:
        outputs, inputs = weights[f"{module}.weight"].shape
        rank = (ranks or {}).get(module, 4)
        name = f"base_model.model.{spell(module)}"
        down = torch.randn(rank, inputs, generator=generator)
        up = torch.randn(outputs, rank, generator=generator)
        tensors[f"{name}.lora_A.weight"] = down.to(dtype)
        tensors[f"{name}.lora_B.weight"] = up.to(dtype)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


def merged(base, adapter, module, scaling, dtype):
    """W + scaling * B A in float32, rounded once."""
    weight = load_file(base / "model.safetensors")[f"{module}.weight"]
    tensors = load_file(adapter / "adapter_model.safetensors")
    down, up = (tensors[f"base_model.model.{module}.lora_{part}.weight"].float() for part in "AB")
    return (weight.float() + (up @ down) * scaling).to(dtype).float().numpy()


def check(base, adapter, out, scaling, dtype=torch.float32, rtol=1e-6):
    """Every adapted parameter is the merged one, and differs from the base's."""
    model = load_model(out).model
    plain = load_file(base / "model.safetensors")
    for module, target in TARGETS.items():
        expected = merged(base, adapter, module, scaling(module), dtype)
        ours = np.asarray(target(model), np.float32).T
        np.testing.assert_allclose(ours, expected, rtol=rtol, atol=1e-6, err_msg=module)
        original = plain[f"{module}.weight"].float().numpy()
        assert np.abs(ours - original).max() > 1
    untouched = f"{LAYERS}0.self_attn.k_proj.weight"
    np.testing.assert_array_equal(
        np.asarray(model.decoder.layers.key.kernel[0], np.float32).T,
        plain[untouched].float().numpy(),
    )


@pytest.mark.parametrize(
    "config, scaling", [({}, 10 / 4), ({"use_rslora": True}, 5.0), ({"lora_alpha": 3.5}, 3.5 / 4)]
)
def test_scaling(tiny, tmp_path, config, scaling):
    adapter = write_adapter(tmp_path / "adapter", tiny, **config)
    convert(tiny, tmp_path / "out", adapter=adapter)
    check(tiny, adapter, tmp_path / "out", lambda module: scaling)
    assert read_manifest(tmp_path / "out").overrides == {"adapter": str(adapter)}
    assert not verify(tiny, tmp_path / "out").differences


def test_patterns_of_rank_and_alpha(tiny, tmp_path):
    ranks = {f"{LAYERS}1.self_attn.q_proj": 2, "multi_modal_projector.linear_1": 3}
    patterns = {"layers.1.self_attn.q_proj": 2, "linear_1": 3, "^q_proj": 9, "_proj": 9}
    adapter = write_adapter(
        tmp_path / "adapter",
        tiny,
        ranks=ranks,
        rank_pattern=patterns,
        alpha_pattern={"down_proj": 7, "fc1": 1.5},
    )
    convert(tiny, tmp_path / "out", adapter=adapter)
    alphas = {MODULES[3]: 7, MODULES[5]: 1.5}
    check(
        tiny,
        adapter,
        tmp_path / "out",
        lambda module: alphas.get(module, 10) / ranks.get(module, 4),
    )


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_half_precision_is_rounded_once(half, tmp_path, dtype):
    adapter = write_adapter(tmp_path / "adapter", half, dtype=torch.bfloat16)
    convert(half, tmp_path / "out", adapter=adapter, dtype=dtype)
    ours = load_model(tmp_path / "out").model.decoder.layers.query.kernel
    assert ours.dtype == (jnp.bfloat16 if dtype is None else jnp.float32)
    kept = torch.bfloat16 if dtype is None else torch.float32
    # Where two sums differ in the last bit of float32, rounding may give neighbours.
    check(half, adapter, tmp_path / "out", lambda module: 2.5, kept, rtol=1e-6 if dtype else 8e-3)
    assert not verify(half, tmp_path / "out").differences


def test_names_of_a_newer_library(tiny, tmp_path):
    """Adapters have the modules' names in the running library, checkpoints those of theirs."""

    def spell(module):
        if module == "language_model.lm_head":
            return "lm_head"
        return "model." + module.replace("language_model.model.", "language_model.")

    plain = write_adapter(tmp_path / "plain", tiny)
    newer = write_adapter(tmp_path / "newer", tiny, spell=spell)
    convert(tiny, tmp_path / "out", adapter=newer)
    check(tiny, plain, tmp_path / "out", lambda module: 2.5)


def test_on_the_command_line(tiny, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", tiny)
    arguments = ["convert", str(tiny), str(tmp_path / "out"), "--adapter", str(adapter)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    check(tiny, adapter, tmp_path / "out", lambda module: 2.5)


def test_adapter_as_source(tiny, tmp_path):
    """The base model is the one that the adapter names."""
    adapter = write_adapter(tmp_path / "adapter", tiny, base_model_name_or_path=str(tiny))
    convert(adapter, tmp_path / "out")
    check(tiny, adapter, tmp_path / "out", lambda module: 2.5)
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.name, manifest.source, manifest.overrides) == ("adapter", str(adapter), {})
    assert not verify(adapter, tmp_path / "out").differences
    with pytest.raises(FlowjaxError, match="is an adapter itself"):
        convert(adapter, tmp_path / "other", adapter=adapter)
    edit_json(adapter / "adapter_config.json", lambda c: c.update(base_model_name_or_path=None))
    with pytest.raises(FlowjaxError, match="base_model_name_or_path is missing"):
        convert(adapter, tmp_path / "other")


def test_whole_weights_take_the_base_s_place(tiny, tmp_path):
    """PEFT saves the vocabulary projection and embeddings whole if an adapter is on one of them."""
    adapter = write_adapter(tmp_path / "adapter", tiny)
    path = adapter / "adapter_model.safetensors"
    weights, tensors = load_file(tiny / "model.safetensors"), load_file(path)
    head = weights["language_model.lm_head.weight"] + 1
    embedding = (weights["language_model.model.embed_tokens.weight"] * 2).to(torch.bfloat16)
    tensors["base_model.model.language_model.lm_head.base_layer.weight"] = head
    tensors["base_model.model.language_model.model.embed_tokens.weight"] = embedding
    save_file(tensors, path, {"format": "pt"})
    convert(tiny, tmp_path / "out", adapter=adapter)
    decoder = load_model(tmp_path / "out").model.decoder
    np.testing.assert_array_equal(decoder.embedding.embedding[...], embedding.float().numpy())
    down, up = (
        tensors[f"base_model.model.language_model.lm_head.lora_{part}.weight"] for part in "AB"
    )
    expected = (head + 2.5 * up @ down).numpy()
    np.testing.assert_allclose(decoder.unembedding.kernel[...].T, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def adapter(tiny, source):
    return write_adapter(source / "adapter", tiny)


@pytest.mark.parametrize(
    "field, value",
    [
        ("peft_type", "LOHA"),
        ("use_dora", True),
        ("use_qalora", True),
        ("lora_bias", True),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["mlp.experts"]),
        ("layer_replication", [[0, 2]]),
        ("alora_invocation_tokens", [1]),
        ("megatron_config", {"x": 1}),
        ("bias", "lora_only"),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", 1),
        ("r", 0),
        ("r", 5),
        ("lora_alpha", -1),
        ("use_rslora", "yes"),
        ("rank_pattern", {".*q_proj": 8}),
        ("rank_pattern", {"q_proj": 8}),
        ("rank_pattern", {"down_proj": "8"}),
        ("alpha_pattern", {"q_proj": None}),
        ("alpha_pattern", [8]),
        ("something_new", True),
    ],
)
def test_field_that_is_not_supported(tiny, adapter, refused, field, value):
    edit_json(adapter / "adapter_config.json", lambda fields: fields.update({field: value}))
    name = "rank" if field == "r" and value else field
    if value == {"q_proj": 8}:
        name = "q_proj.lora_A.weight"
    refused("adapter", name, src=tiny, adapter=adapter)


def change(adapter, edit):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, {"format": "pt"})


def add_newer_name(tensors):
    for part in "AB":
        name = f"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{part}.weight"
        tensors[name] = tensors[f"{Q}.lora_{part}.weight"].clone()


Q = f"base_model.model.{LAYERS}0.self_attn.q_proj"


@pytest.mark.parametrize(
    "edit, word",
    [
        (lambda t: t.pop(f"{Q}.lora_B.weight"), f"{Q}.lora_B.weight is missing"),
        (lambda t: t.pop(f"{Q}.lora_A.weight"), f"{Q}.lora_A.weight is missing"),
        (lambda t: t.clear(), "no lora_B"),
        (lambda t: t.update({f"{Q}.lora_B.bias": torch.ones(64)}), f"{Q}.lora_B.bias is unknown"),
        (lambda t: t.update({"lora_embedding_A": torch.ones(4, 9)}), "lora_embedding_A is unknown"),
        (lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(4, 63)}), f"{Q}.lora_A.weight has"),
        (lambda t: t.update({f"{Q}.lora_B.weight": torch.ones(63, 4)}), f"{Q}.lora_B.weight has"),
        (lambda t: t.update({f"{Q}.lora_B.weight": torch.ones(64)}), f"{Q}.lora_B.weight has"),
        (lambda t: t.update({f"{Q}.weight": torch.ones(63, 64)}), f"{Q}.weight has"),
        (
            lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(4, 64, dtype=torch.int8)}),
            f"{Q}.lora_A.weight has dtype I8",
        ),
        (
            lambda t: t.update({"base_model.model.h.0.mlp.weight": torch.ones(4, 4)}),
            "the base model has no weight h.0.mlp.weight",
        ),
        (
            add_newer_name,
            "two modules are for key language_model.model.layers.0.self_attn.q_proj.weight",
        ),
        (
            lambda t: t.update(
                {f"{Q}.weight": torch.ones(64, 64), f"{Q}.base_layer.weight": torch.ones(64, 64)}
            ),
            "has two whole weights",
        ),
    ],
)
def test_tensors_that_do_not_serve(tiny, adapter, refused, edit, word):
    change(adapter, edit)
    refused("adapter_model.safetensors", word, src=tiny, adapter=adapter)


def test_pickled_and_missing_adapters(tiny, adapter, refused, tmp_path):
    weights = adapter / "adapter_model.safetensors"
    weights.rename(adapter / "adapter_model.bin")
    refused("adapter_model.bin", "safe_serialization=True", src=tiny, adapter=adapter)
    (adapter / "adapter_model.bin").unlink()
    refused("adapter_model.safetensors is missing", src=tiny, adapter=adapter)
    (adapter / "adapter_config.json").unlink()
    refused("adapter_config.json is missing", src=tiny, adapter=adapter)
    refused("nowhere is neither a directory", src=tiny, adapter="nowhere")


def test_verify_notices_another_adapter(tiny, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", tiny)
    convert(tiny, tmp_path / "out", adapter=adapter)
    change(adapter, lambda tensors: tensors[f"{Q}.lora_B.weight"].mul_(2))
    (line,) = verify(tiny, tmp_path / "out").differences
    assert Q.removeprefix("base_model.model.") in line


def test_names_match_whole_parts_only():
    config = AdapterConfig(8, 16.0, {"proj": 2, "a.proj": 4}, {"^b.proj": 1.0}, False, "", None)
    assert config.rank_of("x.q_proj") == 8
    assert config.rank_of("x.a.proj") == 2, "the first pattern that matches holds"
    assert config.scaling("b.proj") == 1 / 2
    assert config.scaling("x.b.proj") == 16 / 2
    stable = AdapterConfig(8, 16.0, {}, {}, True, "", None)
    assert stable.scaling("x") == 16 / math.sqrt(8)


def test_base_with_other_weights_beside_it(tiny, adapter, refused, source):
    """An adapter in the model's own folder is not merged without being asked for."""
    (adapter / "adapter_model.safetensors").rename(source / "adapter_model.safetensors")
    refused("adapter_model.safetensors: key base_model.model.", "is unknown")
