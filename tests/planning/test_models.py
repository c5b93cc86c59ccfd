import math
from typing import Any

import pytest
from jax.sharding import AbstractMesh

from flowjax.data.prompt import Question
from flowjax.errors import FlowjaxError
from flowjax.mesh import DATA, MODEL
from flowjax.models.sharding import parameter_sharding
from flowjax.models.video_llm import parameter_shapes
from flowjax.planning.data import data_of
from flowjax.planning.estimate import parameter_bytes
from flowjax.planning.models import planned, reading
from flowjax.planning.presets import PRESETS

PUBLISHED = {"qwen2.5-vl-7b": 16_584_333_312, "videollama3-7b": 16_089_489_888}
"""Bytes in bfloat16 that the checkpoints' own `model.safetensors.index.json` give as their sum."""


def llama(width, mlp, layers, kv_width, vocabulary):
    """Parameters of a Llama."""
    layer = 2 * width * width + 2 * width * kv_width + 3 * width * mlp + 2 * width
    return layers * layer + 2 * vocabulary * width + width


def clip_tower(outputs):
    """CLIP ViT-L/14 at 336 pixels up to its last layer but one, and two layers of a projector."""
    width, mlp, layers = 1024, 4096, 23
    layer = 4 * (width * width + width) + 2 * width * mlp + mlp + width + 4 * width
    patches = 3 * 14 * 14 * width + 577 * width + width + 2 * width
    projector = width * outputs + outputs + outputs * outputs + outputs
    return layers * layer + patches + projector


@pytest.mark.parametrize(
    "name, decoder",
    [
        ("llava-next-7b-video-ft", (4096, 11008, 32, 4096, 32064)),
        ("llava-next-13b-video-ft", (5120, 13824, 40, 5120, 32064)),
        ("llava-next-34b-video", (7168, 20480, 60, 1024, 64064)),
    ],
)
def test_parameter_bytes_are_the_arithmetic(name, decoder):
    total = llama(*decoder) + clip_tower(decoder[0])
    assert parameter_bytes(planned(name).config, "bfloat16", 1) == 2 * total


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_bytes_are_those_published(name):
    assert parameter_bytes(planned(name).config, "bfloat16", 1) == PUBLISHED[name]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("model", [1, 2, 8])
def test_parameter_bytes_are_those_of_the_shards(name, model):
    config, mesh = planned(name).config, AbstractMesh((1, model), (DATA, MODEL))
    heads = config.decoder.kv_heads
    shards = [
        parameter_sharding(path, shape, mesh, kv_heads=heads).shard_shape(shape)
        for path, shape in parameter_shapes(config).items()
    ]
    assert parameter_bytes(config, "bfloat16", model) == 2 * sum(map(math.prod, shards))


def test_a_model_that_is_not_here():
    with pytest.raises(FlowjaxError, match=r"neither a directory nor a preset; .*qwen2\.5-vl-72b"):
        planned("llava-70b")
    with pytest.raises(FlowjaxError, match="--dtype int8: choose"):
        planned("qwen2.5-vl-7b", "int8")


def test_a_folder_with_a_configuration(pllava_oracle, tmp_path):
    with pytest.raises(FlowjaxError, match=r"has neither flowjax\.json nor config\.json"):
        planned(str(tmp_path))
    found = planned(str(pllava_oracle))
    assert found.config.family == "pllava" and found.dtype == "bfloat16"


def test_positions_without_a_tokenizer():
    question = Question("x" * 40, ("y" * 16, "z" * 16), "A")
    found = reading(planned("llava-next-7b-video-ft"), question, **OF_A_VIDEO)
    layout = found.prompt.layout
    assert found.pixels == (8, 3, 336, 336)
    assert len(layout.positions("video")) == 8 * 144
    assert len(layout.positions("question_stem")) in (40 / 4, 40 / 4 + 1)
    assert layout.positions("last").tolist() == [layout.length - 1]


OF_A_VIDEO: dict[str, Any] = {"frames": None, "size": (640, 360), "max_pixels": None}


def test_positions_follow_the_video():
    model, question = planned("qwen2.5-vl-7b"), data_of("tvbench:1").question

    def video(**options):
        chosen: dict[str, Any] = {**OF_A_VIDEO, **options}
        found = reading(model, question, **chosen)
        return len(found.prompt.layout.positions("video"))

    assert video(frames=8) == 4 * 13 * 23
    assert video(frames=8, size=(1280, 720)) == 4 * 26 * 46
    assert video(frames=8, max_pixels=200_704) < video(frames=8)
    with pytest.raises(FlowjaxError, match="--frames 0: family qwen2_5_vl reads at least"):
        video(frames=0)
    llava = planned("llava-next-7b-video-ft")
    with pytest.raises(FlowjaxError, match="resizes every frame"):
        reading(llava, question, frames=None, size=(640, 360), max_pixels=10_000)


def test_data():
    found = data_of("tvbench:2500")
    assert found.samples == 2500 and found.assumed
    for text in ("tvbench", "nowhere:5", "tvbench:0", "tvbench:"):
        with pytest.raises(FlowjaxError, match="--data"):
            data_of(text)
