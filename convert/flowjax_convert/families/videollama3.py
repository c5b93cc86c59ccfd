"""VideoLLaMA3 checkpoints in the released layout and in that of the training code."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowjax.models.video_llm import VideoLLMConfig
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear, norm
from flowjax_convert.mapping import LAYER, Rule, Spelling, TensorTable, patches

VISION = "model.vision_encoder."


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    del fields
    return TensorTable(
        rules=(
            *siglip_navit_rules(VISION),
            *linear("model.mm_projector.readout.0", "projector/linear_1"),
            *linear("model.mm_projector.readout.2", "projector/linear_2"),
            *decoder_rules(config.decoder),
        ),
        ignored=decoder_ignored(),
        tied=decoder_tied(config.decoder),
        spellings=(Spelling(VISION, f"{VISION}vision_encoder."),),
    )


def siglip_navit_rules(tower: str) -> Iterator[Rule]:
    """Rules of the vision tower, whose keys begin with `tower`."""
    patch = f"{tower}embeddings.patch_embedding"
    yield Rule(f"{patch}.weight", "vision/patch_embedding/kernel", patches)
    yield Rule(f"{patch}.bias", "vision/patch_embedding/bias")
    layer, target = f"{tower}encoder.layers.{LAYER}", "vision/layers"
    for source, name in (("layer_norm1", "attention_norm"), ("layer_norm2", "mlp_norm")):
        yield from norm(f"{layer}.{source}", f"{target}/{name}")
    for source, name in (
        ("self_attn.q_proj", "query"),
        ("self_attn.k_proj", "key"),
        ("self_attn.v_proj", "value"),
        ("self_attn.out_proj", "output"),
        ("mlp.fc1", "up"),
        ("mlp.fc2", "down"),
    ):
        yield from linear(f"{layer}.{source}", f"{target}/{name}")
    yield from norm(f"{tower}post_layernorm", "vision/output_norm")
