"""InternVL checkpoints in the layout of `transformers`."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtyping import Array

from flowjax.models.families.internvl_native import vision_layers
from flowjax.models.pixel_shuffle import PixelShuffleProjector
from flowjax.models.video_llm import VideoLLM, VideoLLMConfig
from flowjax.models.vision.intern_vit import InternViTConfig
from flowjax_convert.check.peer import CheckedPrompt, Peer, image_pixels
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear, norm
from flowjax_convert.mapping import LAYER, Rule, TensorTable, flat, patches, single, transposed

VISION = "vision_tower."
DECODER, HEAD = "language_model.model.", "language_model.lm_head"


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    vision = config.vision
    assert isinstance(vision, InternViTConfig)
    return TensorTable(
        rules=(
            *internvl_vision_rules(vision, vision_layers(fields["vision_config"])),
            *norm("multi_modal_projector.layer_norm", "projector/norm"),
            *linear("multi_modal_projector.linear_1", "projector/linear_1"),
            *linear("multi_modal_projector.linear_2", "projector/linear_2"),
            *decoder_rules(config.decoder, DECODER, HEAD),
        ),
        ignored=decoder_ignored(DECODER),
        tied=decoder_tied(config.decoder, DECODER, HEAD),
    )


def internvl_vision_rules(config: InternViTConfig, layers: int) -> Iterator[Rule]:
    """Rules of the vision tower, whose checkpoint has `layers` layers."""
    embeddings = f"{VISION}embeddings"
    projection = f"{embeddings}.patch_embeddings.projection"
    yield Rule(f"{embeddings}.cls_token", "vision/class_embedding", flat)
    yield Rule(f"{projection}.weight", "vision/patch_embedding/kernel", patches)
    yield Rule(f"{projection}.bias", "vision/patch_embedding/bias")
    yield Rule(f"{embeddings}.position_embeddings", "vision/position_embedding", single)
    layer, target = f"{VISION}encoder.layer.{LAYER}", "vision/layers"
    surplus = "its layer lies after the feature layer"
    for source, name in (
        ("attention.projection_layer", "output"),
        ("mlp.fc1", "up"),
        ("mlp.fc2", "down"),
    ):
        yield from linear(f"{layer}.{source}", f"{target}/{name}", layers=layers, surplus=surplus)
    vectors = {
        "layernorm_before.weight": "attention_norm/scale",
        "layernorm_after.weight": "mlp_norm/scale",
        "lambda_1": "attention_scale",
        "lambda_2": "mlp_scale",
    }
    if config.norm == "layer_norm":
        vectors |= {
            "layernorm_before.bias": "attention_norm/bias",
            "layernorm_after.bias": "mlp_norm/bias",
        }
    if config.qk_norm_eps is not None:
        vectors |= {
            "attention.q_norm.weight": "query_norm/scale",
            "attention.k_norm.weight": "key_norm/scale",
        }
    for source, name in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        kernel = f"{target}/{name}/kernel"
        yield Rule(
            f"{layer}.attention.{source}.weight",
            kernel,
            transposed,
            layers=layers,
            surplus=surplus,
        )
        if config.qkv_bias:
            vectors[f"attention.{source}.bias"] = f"{name}/bias"
    for source, name in vectors.items():
        yield Rule(f"{layer}.{source}", f"{target}/{name}", layers=layers, surplus=surplus)


def shuffled(model: VideoLLM, features: Array, prompt: CheckedPrompt) -> Array:
    """Features side by side in blocks, as the projector of `transformers` reads them."""
    del prompt
    assert isinstance(model.projector, PixelShuffleProjector)
    return model.projector.shuffle(features)


PEERS = {
    "internvl": Peer(
        "InternVLForConditionalGeneration",
        image_pixels,
        "model.multi_modal_projector",
        shuffled,
        still_processor="GotOcr2ImageProcessor",
    )
}
