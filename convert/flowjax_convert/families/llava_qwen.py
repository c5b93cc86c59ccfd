"""LLaVA-Video and LLaVA-OneVision checkpoints in their original layout."""

from collections.abc import Mapping
from typing import Any

from flowjax.models.spatial_pool import NewlinePoolConfig
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.siglip import SiglipConfig
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear
from flowjax_convert.families.llava_onevision import siglip_rules
from flowjax_convert.families.pllava import tower_ignored
from flowjax_convert.mapping import Ignored, Rule, TensorTable

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    vision, projector = config.vision, config.projector
    assert isinstance(vision, SiglipConfig) and isinstance(projector, NewlinePoolConfig)
    reason = "ends the rows of tiled images; no newline stands in this model's videos"
    unread = Ignored(NEWLINE, reason, (config.decoder.width,))
    return TensorTable(
        rules=(
            *siglip_rules(vision.layers, TOWER),
            *linear(f"{PROJECTOR}0", "projector/mlp/linear_1"),
            *linear(f"{PROJECTOR}2", "projector/mlp/linear_2"),
            *(() if projector.newline == "no_token" else (Rule(NEWLINE, "projector/newline"),)),
            *decoder_rules(config.decoder),
        ),
        ignored=(
            *tower_ignored(vision.width, TOWER),
            *decoder_ignored(),
            *((unread,) if projector.newline == "no_token" else ()),
        ),
        tied=decoder_tied(config.decoder),
    )
