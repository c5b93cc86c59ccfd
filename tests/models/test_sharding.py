import re

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.models.registry import family_of
from flowjax.models.sharding import RULES, parameter_sharding, split_axes, training_sharding
from flowjax.models.video_llm import parameter_shapes


@pytest.fixture(scope="module")
def shapes(pllava_oracle):
    path = pllava_oracle / "config.json"
    fields = read_json(path)
    return parameter_shapes(family_of(fields, "").read_config(fields, ""))


def test_every_parameter_matches_exactly_one_rule(shapes):
    for path in shapes:
        assert sum(re.fullmatch(rule.path, path) is not None for rule in RULES) == 1, path


@pytest.mark.parametrize("path", ["decoder/other", "xdecoder/embedding/embedding", "query/kernel"])
def test_a_path_without_a_rule(path):
    with pytest.raises(FlowjaxError, match=f"{path} matches 0 rules"):
        split_axes(path)


@pytest.mark.parametrize(
    "path, shape, spec",
    [
        ("decoder/layers/query/kernel", (2, 12, 8), (None, None, "model")),
        ("decoder/layers/down/kernel", (2, 12, 8), (None, "model", None)),
        ("decoder/layers/down/kernel", (4, 10, 8), (None, None, None)),
        ("vision/layers/query/bias", (2, 8), (None, "model")),
        ("vision/layers/output/bias", (4, 8), (None, None)),
        ("decoder/layers/mlp_norm/scale", (4, 8), (None, None)),
        ("decoder/embedding/embedding", (8, 12), ("model", None)),
        ("decoder/embedding/embedding", (9, 12), (None, "model")),
        ("decoder/embedding/embedding", (9, 13), (None, None)),
        ("decoder/unembedding/kernel", (12, 9), ("model", None)),
        ("projector/linear_2/kernel", (8, 8), ("model", None)),
        ("vision/patch_embedding/kernel", (8, 8), (None, None)),
    ],
)
def test_axes(path, shape, spec):
    devices = np.array(jax.devices() * 8).reshape(2, 4)
    mesh = AbstractMesh(devices.shape, ("data", "model"))
    assert parameter_sharding(path, shape, mesh).spec == PartitionSpec(*spec)


@pytest.mark.parametrize(
    "path, shape, spec",
    [
        ("decoder/layers/query/kernel", (2, 12, 8), (None, "data", "model")),
        ("decoder/layers/down/kernel", (2, 12, 8), (None, "model", "data")),
        ("decoder/layers/down/kernel", (4, 10, 8), (None, "data", None)),
        ("decoder/layers/down/kernel", (4, 9, 7), (None, None, None)),
        ("decoder/layers/query/lora_a", (2, 12, 4), (None, "data", None)),
        ("decoder/layers/query/lora_b", (2, 4, 8), (None, "data", "model")),
        ("decoder/layers/output/lora_a", (2, 8, 4), (None, "model", "data")),
        ("decoder/layers/mlp_norm/scale", (4, 8), (None, None)),
        ("vision/layers/query/bias", (2, 8), (None, "model")),
        ("decoder/embedding/embedding", (8, 12), ("model", "data")),
        ("vision/class_embedding", (8,), (None,)),
    ],
)
def test_axes_in_training(path, shape, spec):
    mesh = AbstractMesh((2, 4), ("data", "model"))
    assert training_sharding(path, shape, mesh).spec == PartitionSpec(*spec)


@pytest.mark.parametrize("path", ["decoder/layers/key/kernel", "decoder/layers/value/bias"])
@pytest.mark.parametrize("kv_heads, spec", [(8, "model"), (4, "model"), (2, None), (6, None)])
def test_keys_and_values_are_split_by_whole_heads(path, kv_heads, spec):
    mesh = AbstractMesh((2, 4), ("data", "model"))
    shape = (2, 16, kv_heads * 16)
    found = parameter_sharding(path, shape, mesh, kv_heads=kv_heads).spec
    assert found == PartitionSpec(None, None, spec)


def test_an_encoders_keys_are_no_business_of_the_decoder():
    mesh = AbstractMesh((2, 4), ("data", "model"))
    found = parameter_sharding("vision/layers/key/kernel", (2, 16, 32), mesh, kv_heads=2).spec
    assert found == PartitionSpec(None, None, "model")
