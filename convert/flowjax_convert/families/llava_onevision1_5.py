"""LLaVA-OneVision-1.5 checkpoints, with the keys of its modules or of its older spelling."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.rice_vit import RiceViTConfig
from flowjax_convert.decoder_rules import norm
from flowjax_convert.families.qwen2_5_vl import VISION, merged_table
from flowjax_convert.families.qwen2_vl import layer_rules
from flowjax_convert.mapping import Rule, TensorTable, patches, single


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    del fields
    vision = config.vision
    assert isinstance(vision, RiceViTConfig)
    return merged_table(
        config, (*vision_rules(vision), *norm(f"{VISION}merger.ln_q", "projector/norm"))
    )


def vision_rules(vision: RiceViTConfig) -> Iterator[Rule]:
    """Rules of the vision encoder."""
    yield Rule(f"{VISION}patch_embed.proj.weight", "vision/patch_embedding/kernel", patches)
    yield Rule(f"{VISION}class_embedding", "vision/class_embedding")
    yield Rule(f"{VISION}class_pos_emb", "vision/class_angle", single)
    yield from norm(f"{VISION}pre_layernorm", "vision/input_norm")
    yield from layer_rules(vision.width)
