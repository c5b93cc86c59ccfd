"""Qwen3-VL checkpoints."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtyping import Array

from flowjax.models.video_llm import VideoLLM, VideoLLMConfig
from flowjax.models.vision.qwen3_vl import Qwen3VisionConfig
from flowjax_convert.check.peer import CheckedPrompt, Peer, patch_pixels
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear, norm
from flowjax_convert.families.qwen2_5_vl import fused_qkv
from flowjax_convert.mapping import LAYER, Rule, TensorTable, deep_patches

VISION, DECODER = "model.visual.", "model.language_model."


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    del fields
    vision = config.vision
    assert isinstance(vision, Qwen3VisionConfig)
    return TensorTable(
        rules=(
            *vision_rules(vision),
            *merger_rules(f"{VISION}merger", "projector/merger"),
            *merger_rules(f"{VISION}deepstack_merger_list.{LAYER}", "projector/deepstack"),
            *decoder_rules(config.decoder, DECODER),
        ),
        ignored=decoder_ignored(DECODER),
        tied=decoder_tied(config.decoder, DECODER),
    )


def vision_rules(vision: Qwen3VisionConfig) -> Iterator[Rule]:
    """Rules of the vision encoder."""
    patch = f"{VISION}patch_embed.proj"
    yield Rule(f"{patch}.weight", "vision/patch_embedding/kernel", deep_patches)
    yield Rule(f"{patch}.bias", "vision/patch_embedding/bias")
    yield Rule(f"{VISION}pos_embed.weight", "vision/position_embedding")
    layer, target = f"{VISION}blocks.{LAYER}", "vision/layers"
    yield from norm(f"{layer}.norm1", f"{target}/attention_norm")
    yield from norm(f"{layer}.norm2", f"{target}/mlp_norm")
    yield from fused_qkv(f"{layer}.attn.qkv", target, vision.width)
    yield from linear(f"{layer}.attn.proj", f"{target}/output")
    yield from linear(f"{layer}.mlp.linear_fc1", f"{target}/up")
    yield from linear(f"{layer}.mlp.linear_fc2", f"{target}/down")


def merger_rules(source: str, target: str) -> Iterator[Rule]:
    """Rules of one merger, or of one for each of the earlier layers."""
    yield from norm(f"{source}.norm", f"{target}/norm")
    yield from linear(f"{source}.linear_fc1", f"{target}/linear_1")
    yield from linear(f"{source}.linear_fc2", f"{target}/linear_2")


def last_layer(model: VideoLLM, features: Array, prompt: CheckedPrompt) -> Array:
    """Features of the last layer, which come before those of earlier ones."""
    del model, prompt
    return features[0]


PEERS = {
    "qwen3_vl": Peer(
        "Qwen3VLForConditionalGeneration", patch_pixels, "model.visual.merger", last_layer
    )
}
