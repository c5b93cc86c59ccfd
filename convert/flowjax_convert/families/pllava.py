"""PLLaVA checkpoints: keys as the published code writes them (CLIP, projector, Llama)."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowjax.models.families.pllava import clip_layers
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.clip import ClipConfig
from flowjax_convert.check.peer import Peer
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear, norm
from flowjax_convert.llava_keys import DECODER, HEAD, PROJECTOR, SPELLINGS, TOWER, newline_ignored
from flowjax_convert.mapping import LAYER, Ignored, Rule, TensorTable, patches


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    vision = config.vision
    assert isinstance(vision, ClipConfig)
    return TensorTable(
        rules=(
            *clip_rules(clip_layers(fields["vision_config"])),
            *linear(f"{PROJECTOR}linear_1", "projector/linear_1"),
            *linear(f"{PROJECTOR}linear_2", "projector/linear_2"),
            *decoder_rules(config.decoder, DECODER, HEAD),
        ),
        ignored=(
            *tower_ignored(vision.width),
            *decoder_ignored(DECODER),
            newline_ignored(config.decoder.width, required=False),
        ),
        tied=decoder_tied(config.decoder, DECODER, HEAD),
        spellings=SPELLINGS,
    )


def clip_rules(layers: int, tower: str = TOWER) -> Iterator[Rule]:
    """Rules of the vision tower, whose checkpoint has `layers` layers.

    tower: what its keys begin with.
    """
    embeddings = f"{tower}embeddings."
    yield Rule(f"{embeddings}class_embedding", "vision/class_embedding")
    yield Rule(f"{embeddings}patch_embedding.weight", "vision/patch_embedding/kernel", patches)
    yield Rule(f"{embeddings}position_embedding.weight", "vision/position_embedding")
    yield from norm(f"{tower}pre_layrnorm", "vision/input_norm")
    yield from tower_layer_rules(layers, tower)


def tower_layer_rules(layers: int, tower: str = TOWER) -> Iterator[Rule]:
    """Rules of the layers of a CLIP or SigLIP tower, whose checkpoint has `layers` of them.

    tower: what its keys begin with.
    """
    layer, target = f"{tower}encoder.layers.{LAYER}", "vision/layers"
    surplus = "its layer lies after the feature layer"
    for source, name in (("layer_norm1", "attention_norm"), ("layer_norm2", "mlp_norm")):
        yield from norm(f"{layer}.{source}", f"{target}/{name}", layers=layers, surplus=surplus)
    for source, name in (
        ("self_attn.q_proj", "query"),
        ("self_attn.k_proj", "key"),
        ("self_attn.v_proj", "value"),
        ("self_attn.out_proj", "output"),
        ("mlp.fc1", "up"),
        ("mlp.fc2", "down"),
    ):
        yield from linear(f"{layer}.{source}", f"{target}/{name}", layers=layers, surplus=surplus)


def tower_ignored(width: int, tower: str = TOWER) -> tuple[Ignored, ...]:
    """What a CLIP or SigLIP tower of this width has and features before its last norm do not need.

    The norm must be there, so that a cut-off checkpoint is noticed.
    """
    unused = "the features are read before this norm"
    return (
        Ignored(f"{tower}post_layernorm.weight", unused, (width,), required=True),
        Ignored(f"{tower}post_layernorm.bias", unused, (width,), required=True),
        Ignored(f"{tower}embeddings.position_ids", "a buffer: 0, 1, 2, ..."),
    )


def peer(architecture: str) -> Peer:
    """The parts of LLaVA, which has no video path, joined as PLLaVA joins them."""
    return Peer(
        architecture,
        lambda _: {},
        "model.multi_modal_projector",
        still_processor="CLIPImageProcessor",
        pooled=True,
    )


PEERS = {
    "llava": peer("LlavaForConditionalGeneration"),
    "llava_next": peer("LlavaNextForConditionalGeneration"),
}
