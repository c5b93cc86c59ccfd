"""Video-LLaVA checkpoints, with the keys of any version of `transformers`."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowjax.models.families.pllava import clip_layers
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.clip import ClipConfig
from flowjax_convert.check.peer import Peer, frame_pixels
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear
from flowjax_convert.families.pllava import clip_rules, tower_ignored
from flowjax_convert.llava_keys import DECODER, HEAD, PROJECTOR, SPELLINGS
from flowjax_convert.mapping import Ignored, Spelling, TensorTable

VIDEO_TOWER, IMAGE_TOWER = "video_tower.vision_model.", "image_tower.vision_model."


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    vision = config.vision
    assert isinstance(vision, ClipConfig)
    layers = clip_layers(fields["vision_config"])
    return TensorTable(
        rules=(
            *clip_rules(layers, VIDEO_TOWER),
            *linear(f"{PROJECTOR}linear_1", "projector/linear_1"),
            *linear(f"{PROJECTOR}linear_2", "projector/linear_2"),
            *decoder_rules(config.decoder, DECODER, HEAD),
        ),
        ignored=(
            *tower_ignored(vision.width, VIDEO_TOWER),
            *image_tower_ignored(layers),
            *decoder_ignored(DECODER),
        ),
        tied=decoder_tied(config.decoder, DECODER, HEAD),
        spellings=(*SPELLINGS, *tower_spellings("video"), *tower_spellings("image")),
    )


def image_tower_ignored(layers: int) -> Iterator[Ignored]:
    """The tower of still images, which is made as that of videos is."""
    reason = "of the tower for still images"
    for rule in clip_rules(layers, IMAGE_TOWER):
        yield Ignored(rule.source, reason)
    for name in ("post_layernorm.weight", "post_layernorm.bias", "embeddings.position_ids"):
        yield Ignored(f"{IMAGE_TOWER}{name}", reason)


def tower_spellings(kind: str) -> Iterator[Spelling]:
    """As those of the only tower in `flowjax_convert.llava_keys`."""
    tower = f"{kind}_tower."
    usual = f"{tower}vision_model."
    for other in (usual, f"model.{usual}", f"model.{tower}", tower):
        yield Spelling(usual, other)


PEERS = {
    "video_llava": Peer(
        "VideoLlavaForConditionalGeneration",
        frame_pixels,
        "model.multi_modal_projector",
        still_processor="CLIPImageProcessor",
    )
}
