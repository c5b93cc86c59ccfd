"""LLaVA-NeXT-Video checkpoints, with the keys of any version of `transformers`."""

from collections.abc import Mapping
from typing import Any

from flowjax.models.families.pllava import clip_layers
from flowjax.models.spatial_pool import StridedPoolConfig
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.clip import ClipConfig
from flowjax_convert.check.peer import Peer, frame_pixels
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear
from flowjax_convert.families.pllava import clip_rules, tower_ignored
from flowjax_convert.llava_keys import DECODER, HEAD, PROJECTOR, SPELLINGS, newline_ignored
from flowjax_convert.mapping import Rule, Spelling, TensorTable, patches

POOL = "vision_resampler.pool"


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    vision, projector = config.vision, config.projector
    assert isinstance(vision, ClipConfig) and isinstance(projector, StridedPoolConfig)
    pool = (
        Rule(f"{POOL}.weight", "projector/pool/kernel", patches),
        Rule(f"{POOL}.bias", "projector/pool/bias"),
    )
    return TensorTable(
        rules=(
            *clip_rules(clip_layers(fields["vision_config"])),
            *(pool if projector.mode == "conv" else ()),
            *linear(f"{PROJECTOR}linear_1", "projector/mlp/linear_1"),
            *linear(f"{PROJECTOR}linear_2", "projector/mlp/linear_2"),
            *decoder_rules(config.decoder, DECODER, HEAD),
        ),
        ignored=(
            *tower_ignored(vision.width),
            *decoder_ignored(DECODER),
            newline_ignored(config.decoder.width, required=True),
        ),
        tied=decoder_tied(config.decoder, DECODER, HEAD),
        spellings=(*SPELLINGS, Spelling(POOL, f"model.{POOL}")),
    )


PEERS = {
    "llava_next_video": Peer(
        "LlavaNextVideoForConditionalGeneration",
        frame_pixels,
        "model.vision_resampler",
        still_processor="CLIPImageProcessor",
    )
}
