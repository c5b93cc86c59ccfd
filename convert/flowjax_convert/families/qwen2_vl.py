"""Qwen2-VL checkpoints, with the keys of released ones or of `transformers`' modules."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.qwen2_vl import Qwen2VisionConfig
from flowjax_convert.check.peer import Peer, patch_pixels
from flowjax_convert.decoder_rules import linear, norm
from flowjax_convert.families.qwen2_5_vl import VISION, fused_qkv, merged_table
from flowjax_convert.mapping import LAYER, Rule, TensorTable, deep_patches


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    del fields
    vision = config.vision
    assert isinstance(vision, Qwen2VisionConfig)
    return merged_table(
        config, (*vision_rules(vision), *norm(f"{VISION}merger.ln_q", "projector/norm"))
    )


def vision_rules(vision: Qwen2VisionConfig) -> Iterator[Rule]:
    """Rules of the vision encoder."""
    patch = f"{VISION}patch_embed.proj.weight"
    yield Rule(patch, "vision/patch_embedding/kernel", deep_patches)
    yield from layer_rules(vision.width)


def layer_rules(width: int) -> Iterator[Rule]:
    """Rules of the encoder's layers, `width` wide."""
    layer, target = f"{VISION}blocks.{LAYER}", "vision/layers"
    yield from norm(f"{layer}.norm1", f"{target}/attention_norm")
    yield from norm(f"{layer}.norm2", f"{target}/mlp_norm")
    yield from fused_qkv(f"{layer}.attn.qkv", target, width)
    yield from linear(f"{layer}.attn.proj", f"{target}/output")
    yield from linear(f"{layer}.mlp.fc1", f"{target}/up")
    yield from linear(f"{layer}.mlp.fc2", f"{target}/down")


PEERS = {"qwen2_vl": Peer("Qwen2VLForConditionalGeneration", patch_pixels, "model.visual.merger")}
