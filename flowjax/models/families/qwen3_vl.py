"""Qwen3-VL (Bai et al. 2025, arXiv 2511.21631), as `transformers` has it; not its MoE variants.

Vision encoder on frames of any size, two by two frames and 2 x 2 patches to a video token, features
of some of its layers added after the first decoder layers, Qwen3 decoder whose rotary embedding
reads time, row and column, the seconds of every temporal patch in the prompt.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any

from flowjax.data.frame_rate import ByRate
from flowjax.data.prompt import Prompt, PromptBuilder, Question, RopeGrid, VideoShape
from flowjax.data.temporal_patches import QWEN3_VL
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig
from flowjax.models.activations import read_activation
from flowjax.models.decoder_config import read_qwen3
from flowjax.models.merger import DeepstackMergerConfig, MergerConfig
from flowjax.models.qwen_vl_config import (
    PLACEHOLDER,
    axial_theta,
    block_grid,
    check_width,
    layer_numbers,
    read_multimodal_decoder,
    read_top,
)
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.qwen3_vl import Qwen3VisionConfig

DEFAULTS = {"model_type": "qwen3", "rope_theta": 500000.0}
"""Where they differ from those of Qwen3."""


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of `transformers`."""
    top = read_top(fields, source, FAMILY.name, 151656)
    decoder = read_multimodal_decoder(
        top, read_qwen3, DEFAULTS, sections=(24, 20, 20), interleaved=True
    )
    vision, outputs = read_vision(top.vision)
    check_width(top.vision, vision.width, vision.heads, outputs, decoder.width)
    merger = MergerConfig(vision.width, outputs, vision.merge**2, "layer")
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=DeepstackMergerConfig(merger, len(vision.deepstack_layers)),
        frames=top.frames,
        tokens_per_frame=None,
        placeholder=top.placeholder,
    )


def read_vision(vision: HFConfig) -> tuple[Qwen3VisionConfig, int]:
    """Read `vision_config`; returns it and the width of a video token."""
    name = vision.take("model_type", str, "qwen3_vl_vision")
    if name not in ("qwen3_vl_vision", "qwen3_vl"):
        raise FlowjaxError(
            f"{vision.name('model_type')} is {name!r}; only 'qwen3_vl_vision' is supported"
        )
    vision.expect("in_channels", 3)
    embeddings = vision.positive("num_position_embeddings", 2304)
    side = isqrt(embeddings)
    if side**2 != embeddings:
        raise FlowjaxError(
            f"{vision.name('num_position_embeddings')} is {embeddings}; it must be a square number"
        )
    outputs, layers = vision.positive("out_hidden_size", 3584), vision.positive("depth", 27)
    deepstack_layers = layer_numbers(vision, "deepstack_visual_indexes", (8, 16, 24), layers)
    if not deepstack_layers:
        raise FlowjaxError(f"{vision.name('deepstack_visual_indexes')} is empty; it needs a layer")
    config = Qwen3VisionConfig(
        width=vision.positive("hidden_size", 1152),
        mlp_width=vision.positive("intermediate_size", 4304),
        layers=layers,
        heads=vision.positive("num_heads", 16),
        patch_size=vision.positive("patch_size", 16),
        frames_per_patch=vision.positive("temporal_patch_size", 2),
        merge=vision.positive("spatial_merge_size", 2),
        positions=side,
        deepstack_layers=deepstack_layers,
        activation=read_activation(
            vision.take("hidden_act", str, "gelu_pytorch_tanh"), vision.name("hidden_act")
        ),
        rope_theta=axial_theta(vision),
    )
    vision.finish()
    return config, outputs


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The chat template; every frame's cell is that of a temporal patch (two frames).

    A cell begins with its seconds and has a start and an end token around its video tokens. So the
    processor of the release writes it (`transformers` 4.57); version 5 puts such tokens around the
    whole video once more.
    """
    vision = config.vision
    assert isinstance(vision, Qwen3VisionConfig)
    _, rows, columns = block_grid(shape, vision.merge**2, vision.patch_values)
    builder = PromptBuilder()
    builder.text("system", "<|im_start|>user\n")
    for index, seconds in enumerate(patch_seconds(shape.timestamps, vision.frames_per_patch)):
        cell = f"frame_{index}"
        builder.text(cell, f"<{seconds:.1f} seconds><|vision_start|>")
        builder.video(PLACEHOLDER, [(cell, rows * columns)], RopeGrid(1, rows, columns, 0.0))
        builder.text(cell, "<|vision_end|>")
    builder.question(question)
    builder.chatml_answer(question)
    return builder.build()


def patch_seconds(timestamps: tuple[float, ...], frames: int) -> list[float]:
    """The middle between the first and the last of every `frames` frames, in seconds.

    The last frame is repeated where there are too few.
    """
    last = len(timestamps) - 1
    return [
        (timestamps[first] + timestamps[min(first + frames - 1, last)]) / 2
        for first in range(0, len(timestamps), frames)
    ]


FAMILY = Family(
    name="qwen3_vl",
    accepts=lambda fields: fields.get("model_type") == "qwen3_vl",
    read_config=read_config,
    read_preprocessor=QWEN3_VL.read,
    prompt=prompt,
    frames=(2, None),
    by_rate=ByRate("ends", least=4, most=768),
)
