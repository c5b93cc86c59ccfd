"""InternVL checkpoints in their original layout: InternViT, `mlp1`, and a decoder."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowjax.models.families.internvl import vision_layers
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.intern_vit import InternViTConfig
from flowjax_convert.decoder_rules import (
    decoder_ignored,
    decoder_rules,
    decoder_tied,
    internlm2_rules,
    linear,
    norm,
    phi3_rules,
    split_linear,
)
from flowjax_convert.mapping import LAYER, Rule, TensorTable, flat, patches, single

VISION = "vision_model."
DECODER = "language_model.model."


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    vision = config.vision
    assert isinstance(vision, InternViTConfig)
    kind = fields["llm_config"]["model_type"]
    rules = {"phi3": phi3_rules, "internlm2": internlm2_rules}.get(kind, decoder_rules)
    names = ("output", "tok_embeddings") if kind == "internlm2" else ("lm_head", "embed_tokens")
    head, embedding = f"language_model.{names[0]}", names[1]
    return TensorTable(
        rules=(
            *intern_vit_rules(vision, vision_layers(fields["vision_config"])),
            *norm("mlp1.0", "projector/norm"),
            *linear("mlp1.1", "projector/linear_1"),
            *linear("mlp1.3", "projector/linear_2"),
            *rules(config.decoder, DECODER, head),
        ),
        ignored=decoder_ignored(DECODER),
        tied=decoder_tied(config.decoder, DECODER, head, embedding),
    )


def intern_vit_rules(config: InternViTConfig, layers: int) -> Iterator[Rule]:
    """Rules of the vision tower, whose checkpoint has `layers` layers."""
    embeddings = f"{VISION}embeddings"
    yield Rule(f"{embeddings}.class_embedding", "vision/class_embedding", flat)
    yield Rule(f"{embeddings}.patch_embedding.weight", "vision/patch_embedding/kernel", patches)
    yield Rule(f"{embeddings}.patch_embedding.bias", "vision/patch_embedding/bias")
    yield Rule(f"{embeddings}.position_embedding", "vision/position_embedding", single)
    layer, target = f"{VISION}encoder.layers.{LAYER}", "vision/layers"
    surplus = "its layer lies after the feature layer"
    parts = {"query": config.width, "key": config.width, "value": config.width}
    yield from split_linear(
        f"{layer}.attn.qkv", target, parts, bias=config.qkv_bias, layers=layers, surplus=surplus
    )
    for source, name in (("attn.proj", "output"), ("mlp.fc1", "up"), ("mlp.fc2", "down")):
        yield from linear(f"{layer}.{source}", f"{target}/{name}", layers=layers, surplus=surplus)
    vectors = {
        "norm1.weight": "attention_norm/scale",
        "norm2.weight": "mlp_norm/scale",
        "ls1": "attention_scale",
        "ls2": "mlp_scale",
    }
    if config.norm == "layer_norm":
        vectors |= {"norm1.bias": "attention_norm/bias", "norm2.bias": "mlp_norm/bias"}
    if config.qk_norm_eps is not None:
        vectors |= {
            "attn.q_norm.weight": "query_norm/scale",
            "attn.k_norm.weight": "key_norm/scale",
        }
    for source, name in vectors.items():
        yield Rule(f"{layer}.{source}", f"{target}/{name}", layers=layers, surplus=surplus)
