"""Qwen2-VL (Wang et al. 2024, arXiv 2409.12191), as `transformers` has it, and its fine-tunes.

Vision encoder on frames of any size, two by two frames and 2 x 2 patches to a video token, Qwen2
decoder whose rotary embedding reads time (the number of the temporal patch), row and column.
"""

from collections.abc import Mapping
from typing import Any

from flowjax.data.frame_rate import ByRate
from flowjax.data.prompt import Prompt, Question, RopeGrid, VideoShape
from flowjax.data.temporal_patches import QWEN2_5_VL
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig
from flowjax.models.activations import read_activation
from flowjax.models.decoder_config import read_qwen2
from flowjax.models.families.qwen2_5_vl import DEFAULTS
from flowjax.models.merger import MergerConfig
from flowjax.models.qwen_vl_config import (
    axial_theta,
    block_grid,
    check_width,
    read_multimodal_decoder,
    read_top,
    video_prompt,
)
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.qwen2_vl import Qwen2VisionConfig


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of `transformers`."""
    top = read_top(fields, source, FAMILY.name, 151656)
    decoder = read_multimodal_decoder(
        top, read_qwen2, DEFAULTS, sections=(16, 24, 24), interleaved=False
    )
    if decoder.head_dim * decoder.heads != decoder.width:
        raise FlowjaxError(
            f"{top.text_source}head_dim is {decoder.head_dim}; it must be hidden_size / "
            f"num_attention_heads, {decoder.width / decoder.heads:g}"
        )
    vision, outputs = read_vision(top.vision)
    check_width(
        top.vision,
        vision.width,
        vision.heads,
        outputs,
        decoder.width,
        names=("embed_dim", "hidden_size"),
    )
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=MergerConfig(vision.width, outputs, vision.merge**2, "layer"),
        frames=top.frames,
        tokens_per_frame=None,
        placeholder=top.placeholder,
    )


def read_vision(vision: HFConfig) -> tuple[Qwen2VisionConfig, int]:
    """Read `vision_config`; returns it and the width of a video token, its `hidden_size`."""
    name = vision.take("model_type", str, "qwen2_vl_vision")
    if name not in ("qwen2_vl_vision", "qwen2_vl"):
        raise FlowjaxError(
            f"{vision.name('model_type')} is {name!r}; only 'qwen2_vl_vision' is supported"
        )
    patch, width = vision.positive("patch_size", 14), vision.positive("embed_dim", 1280)
    vision.expect("spatial_patch_size", patch)
    vision.expect("in_channels", 3)
    vision.expect("in_chans", 3)
    outputs = vision.positive("hidden_size", 3584)
    config = Qwen2VisionConfig(
        width=width,
        mlp_width=width * vision.positive("mlp_ratio", 4),
        layers=vision.positive("depth", 32),
        heads=vision.positive("num_heads", 16),
        patch_size=patch,
        frames_per_patch=vision.positive("temporal_patch_size", 2),
        merge=vision.positive("spatial_merge_size", 2),
        activation=read_activation(
            vision.take("hidden_act", str, "quick_gelu"), vision.name("hidden_act")
        ),
        rope_theta=axial_theta(vision),
    )
    vision.finish()
    return config, outputs


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The chat template; every frame's cell is that of a temporal patch (two frames)."""
    vision = config.vision
    assert isinstance(vision, Qwen2VisionConfig)
    frames, rows, columns = block_grid(shape, vision.merge**2, vision.patch_values)
    return video_prompt(question, RopeGrid(frames, rows, columns, 1.0))


FAMILY = Family(
    name="qwen2_vl",
    accepts=lambda fields: fields.get("model_type") == "qwen2_vl",
    read_config=read_config,
    read_preprocessor=QWEN2_5_VL.read,
    prompt=prompt,
    by_rate=ByRate("starts", least=4, most=768, multiple=2),
)
