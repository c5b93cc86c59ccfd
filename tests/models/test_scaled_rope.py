"""YaRN's and Llama 3.1's rotary embedding, plain and multimodal, against `transformers`."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, Qwen2_5_VLTextConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding

from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig
from flowjax.models.decoder_config import read_decoder
from flowjax.models.rope import MultimodalRope, ScaledRope
from flowjax.models.rope_config import read_rope

SIZES = {"hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 32768}
YARN = {"factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
CASES = [
    ("yarn", YARN),
    ("yarn", YARN | {"beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.3}),
    ("yarn", YARN | {"truncate": False}),
    ("yarn", YARN | {"mscale": 0.7, "mscale_all_dim": 1.1}),
    ("llama3", LLAMA3),
    ("llama3", LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 512}),
]


def spellings(kind, fields, theta):
    """As versions 4 and 5 write it."""
    yield {"rope_theta": theta, "rope_scaling": {"type": kind, **fields}}
    yield {"rope_theta": theta, "rope_scaling": {"rope_type": kind, "type": kind, **fields}}
    yield {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **fields}}


@pytest.mark.parametrize(
    ("kind", "fields", "known"),
    [
        ("yarn", YARN, 32768),
        ("yarn", YARN | {"factor": 8.0}, 65536),
        ("yarn", {"factor": 4.0}, 131072),
        ("linear", {"factor": 2.0}, 65536),
        ("dynamic", {"factor": 2}, 65536),
        ("llama3", LLAMA3 | {"factor": 32.0}, 32768),
        ("default", {}, 32768),
    ],
)
def test_how_many_positions_a_decoder_knows(kind, fields, known):
    for spelled in spellings(kind, fields, 1e4):
        decoder = read_decoder(HFConfig({"model_type": "llama", **SIZES, **spelled}, "c: "))
        assert decoder.positions == known


@pytest.mark.parametrize("kind, fields", CASES)
@pytest.mark.parametrize("theta", [10000.0, 1000000.0])
def test_plain(kind, fields, theta):
    scaling = {"rope_type": kind, "rope_theta": theta, **fields}
    theirs = LlamaRotaryEmbedding(LlamaConfig(**SIZES, rope_parameters=scaling))
    position = torch.arange(0, 30000, 37)[None]
    cos, sin = theirs(torch.zeros(1, dtype=torch.float32), position)
    for spelled in spellings(kind, fields, theta):
        decoder = read_decoder(HFConfig({"model_type": "llama", **SIZES, **spelled}, "c: "))
        assert isinstance(decoder.rope, ScaledRope)
        ours = decoder.rope(jnp.asarray(position.numpy()), 30000)
        # Angles of 30000 radians carry the rounding of their frequencies.
        np.testing.assert_allclose(ours.cos, cos[0], atol=8e-3)
        np.testing.assert_allclose(ours.sin, sin[0], atol=8e-3)
        near = decoder.rope(jnp.asarray(position.numpy()[:, :8]), 30000)
        np.testing.assert_allclose(near.cos, cos[0, :8], atol=5e-5)
        inverse = 1 / (np.array(decoder.rope.factors) * theta ** (np.arange(0, 64, 2) / 64))
        np.testing.assert_allclose(inverse, theirs.inv_freq.numpy(), rtol=2e-6)


def test_multimodal():
    """Over sections, whose rows and columns differ from time."""
    scaling = {"rope_type": "yarn", "rope_theta": 1e6, "mrope_section": [8, 12, 12], **YARN}
    theirs = Qwen2_5_VLRotaryEmbedding(Qwen2_5_VLTextConfig(**SIZES, rope_parameters=scaling))
    fields = {"rope_parameters": {**YARN, "rope_type": "yarn", "rope_theta": 1e6}}
    plain = read_rope(HFConfig(fields, ""), 64, 32768)
    assert isinstance(plain, ScaledRope)
    ours = MultimodalRope(64, 1e6, (8, 12, 12), False, plain.factors, plain.scale)
    position = np.random.default_rng(0).integers(0, 300, (3, 50))
    cos, sin = theirs(torch.zeros(1, dtype=torch.float32), torch.from_numpy(position)[:, None])
    turned = ours(jnp.asarray(position), 300)
    np.testing.assert_allclose(turned.cos, cos[0], atol=5e-5)
    np.testing.assert_allclose(turned.sin, sin[0], atol=5e-5)


@pytest.mark.parametrize(
    "kind, change, word",
    [
        ("yarn", {"factor": -1.0}, "factor"),
        ("yarn", {"beta_fast": 0.0}, "beta_fast"),
        ("yarn", {"truncate": 3}, "truncate"),
        ("yarn", {"unknown": 3}, "unknown"),
        ("llama3", {"high_freq_factor": 1.0}, "high_freq_factor"),
    ],
)
def test_refused(kind, change, word):
    base = YARN if kind == "yarn" else LLAMA3
    fields = {"rope_scaling": {"rope_type": kind, **base, **change}}
    with pytest.raises(FlowjaxError, match=word):
        read_rope(HFConfig(fields, "config.json: "), 64, 32768)


@pytest.mark.parametrize("factor", [float("inf"), float("nan")])
def test_a_factor_that_is_no_number_is_refused(factor):
    fields = {"model_type": "llama", **SIZES, "rope_scaling": {"type": "linear", "factor": factor}}
    with pytest.raises(FlowjaxError, match=r"rope_scaling\.factor is (inf|nan)"):
        read_decoder(HFConfig(fields, "c: "))
