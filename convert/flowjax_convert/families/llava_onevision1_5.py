"""LLaVA-OneVision-1.5 checkpoints, with the keys of its modules or of its older spelling."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.rice_vit import RiceViTConfig
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear, norm
from flowjax_convert.families.qwen2_5_vl import DECODER, VISION, fused_qkv
from flowjax_convert.mapping import LAYER, Rule, Spelling, TensorTable, patches, single


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    del fields
    vision = config.vision
    assert isinstance(vision, RiceViTConfig)
    return TensorTable(
        rules=(
            *vision_rules(vision),
            *norm(f"{VISION}merger.ln_q", "projector/norm"),
            *linear(f"{VISION}merger.mlp.0", "projector/linear_1"),
            *linear(f"{VISION}merger.mlp.2", "projector/linear_2"),
            *decoder_rules(config.decoder, DECODER),
        ),
        ignored=decoder_ignored(DECODER),
        tied=decoder_tied(config.decoder, DECODER),
        spellings=(
            Spelling(VISION, "model.visual."),
            Spelling(DECODER, "model.language_model."),
        ),
    )


def vision_rules(vision: RiceViTConfig) -> Iterator[Rule]:
    """Rules of the vision encoder."""
    yield Rule(f"{VISION}patch_embed.proj.weight", "vision/patch_embedding/kernel", patches)
    yield Rule(f"{VISION}class_embedding", "vision/class_embedding")
    yield Rule(f"{VISION}class_pos_emb", "vision/class_angle", single)
    yield from norm(f"{VISION}pre_layernorm", "vision/input_norm")
    layer, target = f"{VISION}blocks.{LAYER}", "vision/layers"
    yield from norm(f"{layer}.norm1", f"{target}/attention_norm")
    yield from norm(f"{layer}.norm2", f"{target}/mlp_norm")
    yield from fused_qkv(f"{layer}.attn.qkv", target, vision.width)
    yield from linear(f"{layer}.attn.proj", f"{target}/output")
    yield from linear(f"{layer}.mlp.fc1", f"{target}/up")
    yield from linear(f"{layer}.mlp.fc2", f"{target}/down")
