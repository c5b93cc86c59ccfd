"""LLaVA-OneVision checkpoints, with the keys of any version of `transformers`."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowjax.models.families.llava_onevision import siglip_layers
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.siglip import SiglipConfig
from flowjax_convert.check.peer import Peer, frame_pixels
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear
from flowjax_convert.families.pllava import tower_ignored, tower_layer_rules
from flowjax_convert.llava_keys import DECODER, HEAD, NEWLINE, PROJECTOR, SPELLINGS, TOWER
from flowjax_convert.mapping import Ignored, Rule, TensorTable, patches

POOLING_HEAD = (
    "probe", "attention.in_proj_weight", "attention.in_proj_bias", "attention.out_proj.weight",
    "attention.out_proj.bias", "layernorm.weight", "layernorm.bias", "mlp.fc1.weight",
    "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
)  # fmt: skip


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    vision = config.vision
    assert isinstance(vision, SiglipConfig)
    return TensorTable(
        rules=(
            *siglip_rules(siglip_layers(fields["vision_config"])),
            *linear(f"{PROJECTOR}linear_1", "projector/mlp/linear_1"),
            *linear(f"{PROJECTOR}linear_2", "projector/mlp/linear_2"),
            Rule(NEWLINE, "projector/newline"),
            *decoder_rules(config.decoder, DECODER, HEAD),
        ),
        ignored=(
            *tower_ignored(vision.width),
            *(Ignored(f"{TOWER}head.{name}", "pools the last layer") for name in POOLING_HEAD),
            *decoder_ignored(DECODER),
        ),
        tied=decoder_tied(config.decoder, DECODER, HEAD),
        spellings=SPELLINGS,
    )


def siglip_rules(layers: int, tower: str = TOWER) -> Iterator[Rule]:
    """Rules of the vision tower, whose checkpoint has `layers` layers.

    tower: what its keys begin with.
    """
    patch = f"{tower}embeddings.patch_embedding"
    yield Rule(f"{patch}.weight", "vision/patch_embedding/kernel", patches)
    yield Rule(f"{patch}.bias", "vision/patch_embedding/bias")
    yield Rule(f"{tower}embeddings.position_embedding.weight", "vision/position_embedding")
    yield from tower_layer_rules(layers, tower)


PEERS = {
    "llava_onevision": Peer(
        "LlavaOnevisionForConditionalGeneration",
        frame_pixels,
        "model.multi_modal_projector",
        still_processor="SiglipImageProcessor",
    )
}
