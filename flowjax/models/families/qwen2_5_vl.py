"""Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923), as `transformers` has it.

Vision encoder with window attention on frames of any size, two by two frames and 2 x 2 patches to a
video token, Qwen2.5 decoder whose rotary embedding reads time, row and column.
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
from flowjax.models.merger import MergerConfig
from flowjax.models.qwen_vl_config import (
    axial_theta,
    block_grid,
    check_width,
    layer_numbers,
    read_multimodal_decoder,
    read_top,
    video_prompt,
)
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.qwen2_5_vl import Qwen25VisionConfig

DEFAULTS = {
    "model_type": "qwen2",
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
}


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
    check_width(top.vision, vision.width, vision.heads, outputs, decoder.width)
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=MergerConfig(vision.width, outputs, vision.merge**2, "rms"),
        frames=top.frames,
        tokens_per_frame=None,
        placeholder=top.placeholder,
    )


def read_vision(vision: HFConfig) -> tuple[Qwen25VisionConfig, int]:
    """Read `vision_config`; returns it and the width of a video token."""
    name = vision.take("model_type", str, "qwen2_5_vl_vision")
    if name not in ("qwen2_5_vl_vision", "qwen2_5_vl"):
        raise FlowjaxError(
            f"{vision.name('model_type')} is {name!r}; only 'qwen2_5_vl_vision' is supported"
        )
    patch, merge = vision.positive("patch_size", 14), vision.positive("spatial_merge_size", 2)
    vision.expect("spatial_patch_size", patch)
    vision.expect("in_channels", 3)
    vision.expect("in_chans", 3)
    window = vision.positive("window_size", 112) // merge // patch
    if window < 1:
        raise FlowjaxError(
            f"{vision.name('window_size')} must be at least spatial_merge_size * patch_size, "
            f"{merge * patch}"
        )
    outputs, layers = vision.positive("out_hidden_size", 3584), vision.positive("depth", 32)
    config = Qwen25VisionConfig(
        width=vision.positive("hidden_size", 3584),
        mlp_width=vision.positive("intermediate_size", 3420),
        layers=layers,
        heads=vision.positive("num_heads", 16),
        patch_size=patch,
        frames_per_patch=vision.positive("temporal_patch_size", 2),
        merge=merge,
        window=window,
        full_layers=layer_numbers(vision, "fullatt_block_indexes", (7, 15, 23, 31), layers),
        activation=read_activation(
            vision.take("hidden_act", str, "silu"), vision.name("hidden_act")
        ),
        rope_theta=axial_theta(vision),
        tokens_per_second=vision.positive("tokens_per_second", 4),
    )
    vision.finish()
    return config, outputs


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The chat template; every frame's cell is that of a temporal patch (two frames)."""
    vision = config.vision
    assert isinstance(vision, Qwen25VisionConfig)
    frames, rows, columns = block_grid(shape, vision.merge**2, vision.patch_values)
    return video_prompt(
        question, RopeGrid(frames, rows, columns, time_step(vision, shape.timestamps))
    )


def time_step(vision: Qwen25VisionConfig, timestamps: tuple[float, ...]) -> float:
    """Positions from one temporal patch to the next: their seconds times `tokens_per_second`.

    timestamps: of the frames; their mean distance counts.
    """
    between = len(timestamps) - 1
    seconds = (timestamps[-1] - timestamps[0]) / between if between else 0.0
    return vision.frames_per_patch * seconds * vision.tokens_per_second


FAMILY = Family(
    name="qwen2_5_vl",
    accepts=lambda fields: fields.get("model_type") == "qwen2_5_vl",
    read_config=read_config,
    read_preprocessor=QWEN2_5_VL.read,
    prompt=prompt,
    by_rate=ByRate("starts", least=4, most=768, multiple=2),
)
