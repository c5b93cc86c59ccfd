"""Decoder configurations as `transformers` 4 and 5 write them, and rotary embeddings they name."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Phi3Config, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig
from flowjax.models.decoder_config import READERS, read_decoder, read_phi3
from flowjax.models.rope import LongRope, Rope

SIZES = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CLASSES = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "phi3": Phi3Config,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}
PAIRS = 8
LONG = {
    "short_factor": [1 + 0.05 * i for i in range(PAIRS)],
    "long_factor": [1.2**i for i in range(1, PAIRS + 1)],
}


def read(fields):
    return read_decoder(HFConfig(fields, "config.json: text_config."))


def written(config) -> dict:
    return json.loads(config.to_json_string(use_diff=False))


def test_every_decoder_is_tested():
    # That of InternLM2 comes with its checkpoints: see `test_internvl`.
    assert CLASSES.keys() | {"internlm2"} == READERS.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_absent_fields_have_the_defaults_of_the_library(name):
    whole = written(CLASSES[name](pad_token_id=0))
    assert read({"model_type": name}) == read(whole)


@pytest.mark.parametrize("name", CLASSES)
def test_fields_of_both_versions(name):
    theta = {"rope_type": "default", "rope_theta": 5e5}
    new = CLASSES[name](**SIZES, rope_parameters=theta, tie_word_embeddings=True)
    config = read(written(new))
    old = {
        **SIZES,
        "model_type": name,
        "rope_theta": 500000,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "attn_implementation": "flash_attention_2",
    }
    if "qwen" in name:
        # The width of a window that is switched off.
        old |= {"use_sliding_window": False, "sliding_window": 32, "max_window_layers": 1}
    assert read(old) == config
    assert config.rope == Rope(config.head_dim, 5e5)
    assert (config.heads, config.kv_heads, config.width) == (4, 2, 64)
    assert config.tied_embeddings
    assert config.qkv_bias == (name == "qwen2")
    assert config.qk_norm == (name == "qwen3")


@pytest.mark.parametrize("length", [40, 64, 65, 150])
@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "longrope", **LONG},
        {"rope_type": "longrope", **LONG, "factor": 3.0},
        {"rope_type": "longrope", **LONG, "attention_factor": 1.25},
        {"rope_type": "su", **LONG},
        {"rope_type": "longrope", "type": "su", **LONG},
    ],
)
def test_long_rope(scaling, length):
    limits = {"max_position_embeddings": 512, "original_max_position_embeddings": 64}
    config = Phi3Config(**SIZES, **limits, rope_parameters=scaling | {"rope_type": "longrope"})
    ours = read({**SIZES, **limits, "model_type": "phi3", "rope_scaling": scaling}).rope
    assert read(written(config)).rope == ours
    assert_same_angles(ours, Phi3RotaryEmbedding(config), length)


@pytest.mark.parametrize("length", [40, 64, 65, 150])
def test_dynamic_rope(length):
    scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6}
    config = LlamaConfig(**SIZES, max_position_embeddings=64, rope_parameters=scaling)
    assert_same_angles(read(written(config)).rope, LlamaRotaryEmbedding(config), length)


def test_a_null_window_is_none():
    fields = {**SIZES, "model_type": "mistral"}
    windows = [read(fields | more).window for more in ({}, {"sliding_window": None})]
    assert windows == [4096, None]
    assert read(fields | {"sliding_window": 7}).window == 7


def test_dynamic_rope_grows():
    fields = {**SIZES, "model_type": "qwen2", "max_position_embeddings": 64, "rope_theta": 1e6}
    rope = read({**fields, "rope_scaling": {"type": "dynamic", "factor": 2.0}}).rope
    position = jnp.arange(40)[None]
    short, long = rope(position, 64), rope(position, 150)
    plain = Rope(16, 1e6)(position, 40)
    np.testing.assert_allclose(short.cos, plain.cos, rtol=0, atol=1e-6)
    assert float(jnp.abs(long.cos - plain.cos).max()) > 0.1


def assert_same_angles(ours, theirs, length):
    position = np.arange(length)
    with torch.no_grad():
        cos, sin = theirs(torch.zeros(1), torch.from_numpy(position)[None])
    rotary = ours(jnp.asarray(position)[None], length)
    np.testing.assert_allclose(rotary.cos, cos[0].numpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(rotary.sin, sin[0].numpy(), rtol=0, atol=2e-5)


def test_phi3_as_released_for_long_prompts():
    """Phi-3-mini-128k: 131072 positions from 4096, the default of that field."""
    limits = {"max_position_embeddings": 131072, "sliding_window": 262144}
    fields = {**SIZES, **limits, "model_type": "phi3"}
    rope = read({**fields, "rope_scaling": {"type": "su", **LONG}}).rope
    assert isinstance(rope, LongRope)
    assert rope.original_length == 4096
    assert rope.scale == pytest.approx(np.sqrt(1 + np.log(32) / np.log(4096)))
    same = dataclasses.replace(rope, scale=1.0)
    unscaled = {**fields, "max_position_embeddings": 4096}
    assert read({**unscaled, "rope_scaling": {"type": "su", **LONG}}).rope == same


def test_a_sliding_window_that_binds_is_refused():
    fields = {**SIZES, "max_position_embeddings": 4096}
    for window in (2047, 4095):
        with pytest.raises(FlowjaxError, match=f"sliding_window is {window}; it must be null or"):
            read_phi3(HFConfig(fields | {"sliding_window": window}, ""))
    for window in (None, 4096, 262144):
        read_phi3(HFConfig(fields | {"sliding_window": window}, ""))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "gemma"}, "text_config.model_type is 'gemma'; the decoders are internlm2"),
        ({"hidden_act": "gelu"}, "text_config.hidden_act is 'gelu'"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3; it must divide num_attention_h"),
        ({"hidden_size": 66}, "hidden_size is 66; it must be a multiple of num_attention_heads"),
        ({"head_dim": 15}, "head_dim is 15; rotary embedding needs it to be even"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is "),
        ({"layer_types": ["full_attention"]}, "layer_types is "),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0"),
        ({"rope_theta": -1.0}, "rope_theta is -1.0"),
        ({"rope_scaling": {"type": "ntk", "factor": 4.0}}, "rope_type is 'ntk'"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling.factor is missing"),
        ({"rope_scaling": {"type": "dynamic"}}, "rope_scaling.factor is missing"),
        (
            {"rope_scaling": {"type": "linear", "rope_type": "dynamic", "factor": 2}},
            "rope_scaling.type is 'linear', but rope_type is 'dynamic'",
        ),
        ({"rope_scaling": {"type": "dynamic", "factor": 0.5}}, "rope_scaling.factor is 0.5"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2, "beta": 1}}, "rope_scaling.beta is 1"),
        ({"rope_scaling": {"type": "su", **LONG, "long_factor": [1.0]}}, "long_factor must be 8"),
        ({"rope_scaling": {"type": "su", **LONG, "short_factor": [0] * 8}}, "short_factor must be"),
        ({"rope_scaling": {"type": "su"}}, "rope_scaling.short_factor is missing"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        (
            {"rope_parameters": {}, "rope_scaling": {"type": "dynamic", "factor": 2}},
            "text_config.rope_scaling is ",
        ),
        (
            {
                "rope_scaling": {"type": "su", **LONG},
                "original_max_position_embeddings": 1,
            },
            "original_max_position_embeddings is 1; it must be at least 2",
        ),
    ],
)
def test_refused(changes, message):
    with pytest.raises(FlowjaxError, match=message):
        read({**SIZES, "model_type": "qwen2", **changes})


def test_a_vocabulary_of_two_sizes_is_refused():
    with pytest.raises(FlowjaxError, match="vocab_size is 100, but vocab_size is 96"):
        read_decoder(HFConfig({**SIZES, "model_type": "llama"}, ""), 96)
