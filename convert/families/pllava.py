"""PLLaVA checkpoints: keys as the published code writes them (CLIP, projector, Llama)."""

from collections.abc import Iterator, Mapping
from typing import Any

from convert.mapping import LAYER, Ignored, Rule, TensorTable, Tied, patches, transposed
from flowjax.models.families.pllava import clip_layers
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.clip import ClipConfig

CLIP = "vision_tower.vision_model."
LLAMA = "language_model."


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `convert.mapping`."""
    vision = config.vision
    assert isinstance(vision, ClipConfig)
    width = (vision.width,)
    unused = "the published model reads features before this norm"
    tied = config.decoder.tied_embeddings
    return TensorTable(
        rules=(
            *clip_rules(clip_layers(fields["vision_config"])),
            *linear("multi_modal_projector.linear_1", "projector/linear_1"),
            *linear("multi_modal_projector.linear_2", "projector/linear_2"),
            *llama_rules(tied),
        ),
        ignored=(
            Ignored(f"{CLIP}post_layernorm.weight", unused, width, required=True),
            Ignored(f"{CLIP}post_layernorm.bias", unused, width, required=True),
            Ignored(f"{CLIP}embeddings.position_ids", "a buffer: 0, 1, 2, ..."),
            Ignored(
                f"{LLAMA}model.layers.{LAYER}.self_attn.rotary_emb.inv_freq",
                "a buffer that follows from rope_theta",
            ),
            Ignored(f"{LLAMA}model.rotary_emb.inv_freq", "a buffer that follows from rope_theta"),
            Ignored(
                "image_newline",
                "ends the rows of tiled images; video prompts of this family have no such token",
                (config.decoder.width,),
            ),
        ),
        tied=(Tied(f"{LLAMA}lm_head.weight", f"{LLAMA}model.embed_tokens.weight"),) if tied else (),
    )


def clip_rules(layers: int) -> Iterator[Rule]:
    """Rules of the vision tower, whose checkpoint has `layers` layers."""
    yield Rule(f"{CLIP}embeddings.class_embedding", "vision/class_embedding")
    yield Rule(f"{CLIP}embeddings.patch_embedding.weight", "vision/patch_embedding/kernel", patches)
    yield Rule(f"{CLIP}embeddings.position_embedding.weight", "vision/position_embedding")
    yield Rule(f"{CLIP}pre_layrnorm.weight", "vision/input_norm/scale")
    yield Rule(f"{CLIP}pre_layrnorm.bias", "vision/input_norm/bias")
    layer, target = f"{CLIP}encoder.layers.{LAYER}", "vision/layers"
    surplus = "its layer lies after the feature layer"
    for source, name in (("layer_norm1", "attention_norm"), ("layer_norm2", "mlp_norm")):
        yield Rule(
            f"{layer}.{source}.weight", f"{target}/{name}/scale", layers=layers, surplus=surplus
        )
        yield Rule(
            f"{layer}.{source}.bias", f"{target}/{name}/bias", layers=layers, surplus=surplus
        )
    for source, name in (
        ("self_attn.q_proj", "query"),
        ("self_attn.k_proj", "key"),
        ("self_attn.v_proj", "value"),
        ("self_attn.out_proj", "output"),
        ("mlp.fc1", "up"),
        ("mlp.fc2", "down"),
    ):
        yield from linear(f"{layer}.{source}", f"{target}/{name}", layers=layers, surplus=surplus)


def llama_rules(tied: bool) -> Iterator[Rule]:
    """Rules of the decoder; `tied` embeddings need no vocabulary projection."""
    yield Rule(f"{LLAMA}model.embed_tokens.weight", "decoder/embedding/embedding")
    yield Rule(f"{LLAMA}model.norm.weight", "decoder/norm/scale")
    if not tied:
        yield Rule(f"{LLAMA}lm_head.weight", "decoder/unembedding/kernel", transposed)
    layer, target = f"{LLAMA}model.layers.{LAYER}", "decoder/layers"
    yield Rule(f"{layer}.input_layernorm.weight", f"{target}/attention_norm/scale")
    yield Rule(f"{layer}.post_attention_layernorm.weight", f"{target}/mlp_norm/scale")
    for source, name in (
        ("self_attn.q_proj", "query"),
        ("self_attn.k_proj", "key"),
        ("self_attn.v_proj", "value"),
        ("self_attn.o_proj", "output"),
        ("mlp.gate_proj", "gate"),
        ("mlp.up_proj", "up"),
        ("mlp.down_proj", "down"),
    ):
        yield Rule(f"{layer}.{source}.weight", f"{target}/{name}/kernel", transposed)


def linear(
    source: str, target: str, *, layers: int | None = None, surplus: str = ""
) -> Iterator[Rule]:
    """Weight and bias of one linear layer."""
    yield Rule(f"{source}.weight", f"{target}/kernel", transposed, layers=layers, surplus=surplus)
    yield Rule(f"{source}.bias", f"{target}/bias", layers=layers, surplus=surplus)
