"""LLaVA-OneVision-1.5 (An et al. 2025, arXiv 2509.23661), as its release has it.

RICE-ViT on frames of any size, 2 x 2 patches of one frame to a video token, Qwen3 decoder with
plain rotary embedding. The release was trained on still images; it reads videos by the path for
videos that its code has from Qwen2.5-VL.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flowjax.data.frame_rate import ByRate
from flowjax.data.prompt import Prompt, Question, RopeGrid, VideoShape
from flowjax.data.temporal_patches import QWEN2_5_VL, TemporalPatchPreprocessor
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.activations import read_activation
from flowjax.models.decoder_config import read_qwen3
from flowjax.models.merger import MergerConfig
from flowjax.models.qwen_vl_config import FRAMES, TOKENS, block_grid, check_width, video_prompt
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.rice_vit import RiceViTConfig

CODE = "LLaVA-OneVision-1.5's release: modeling_llavaonevision1_5.py"
UNREAD = (
    TOKENS,
    Unread(
        ("vocab_size", "tie_word_embeddings"),
        "of the decoder, whose configuration says them",
        f"{CODE} reads text_config",
    ),
    Unread(
        ("embed_dim", "temporal_patch_size"),
        "another name of hidden_size; and frames of a patch, which is one",
        f"{CODE}, RicePatchEmbed",
        part="vision_config",
    ),
    Unread(
        ("image_token_id", "video_token_id"),
        "copies, or nothing, in text_config",
        f"{CODE} reads those of the top level",
        part="text_config",
    ),
)
DEFAULTS = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000000.0,
}
"""Where they differ from those of Qwen3."""


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of the release's classes."""
    top = HFConfig(fields, f"{source}: ", UNREAD)
    text = {**DEFAULTS, **top.take("text_config", dict)}
    if text.get("model_type", "LLaVAOneVision1_5_text") == "LLaVAOneVision1_5_text":
        text["model_type"] = "qwen3"
    unread = [inner for entry in UNREAD if (inner := entry.within("text_config")) is not None]
    decoder = read_qwen3(HFConfig(text, f"{source}: text_config.", unread))
    vision, outputs, norm_eps = read_vision(top.nested("vision_config"), decoder.width)
    config = VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=MergerConfig(vision.width, outputs, vision.merge**2, "layer", norm_eps),
        frames=top.positive("num_frames", FRAMES),
        tokens_per_frame=None,
        placeholder=top.positive("video_token_id", 151656),
    )
    top.finish()
    return config


def read_vision(vision: HFConfig, decoder: int) -> tuple[RiceViTConfig, int, float]:
    """Read `vision_config`; returns it, the width of a video token, and the merger's epsilon.

    decoder: its width.
    """
    vision.expect("model_type", "rice_vit")
    vision.expect("in_channels", 3)
    outputs = vision.positive("text_hidden_size", 2560)
    config = RiceViTConfig(
        width=vision.positive("hidden_size", 1024),
        mlp_width=vision.positive("intermediate_size", 4096),
        layers=vision.positive("depth", 24),
        heads=vision.positive("num_heads", 16),
        patch_size=vision.positive("patch_size", 14),
        merge=vision.positive("spatial_merge_size", 2),
        norm_eps=vision.positive_float("layer_norm_eps", 1e-5),
        activation=read_activation(
            vision.take("hidden_act", str, "gelu"), vision.name("hidden_act")
        ),
    )
    names = ("hidden_size", "text_hidden_size")
    check_width(vision, config.width, config.heads, outputs, decoder, names)
    vision.finish()
    return config, outputs, config.norm_eps


def read_preprocessor(fields: Mapping[str, Any], source: str) -> TemporalPatchPreprocessor:
    """Read the processor, which is Qwen2.5-VL's; a patch is of one frame.

    The release's folder may have a configuration for videos left from Qwen2.5-VL, which says two:
    its vision encoder cannot read such patches.
    """
    return dataclasses.replace(QWEN2_5_VL.read(fields, source), frames_per_patch=1)


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The chat template, which is Qwen2-VL's; every frame has a cell."""
    vision = config.vision
    assert isinstance(vision, RiceViTConfig)
    frames, rows, columns = block_grid(shape, vision.merge**2, vision.patch_values)
    return video_prompt(question, RopeGrid(frames, rows, columns, 1.0), multimodal=False)


FAMILY = Family(
    name="llava_onevision1_5",
    accepts=lambda fields: fields.get("model_type") == "llavaonevision1_5",
    read_config=read_config,
    read_preprocessor=read_preprocessor,
    prompt=prompt,
    by_rate=ByRate("starts", least=4, most=768, multiple=2),
)
