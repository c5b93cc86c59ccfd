"""SmolVLM2 checkpoints, with the keys of any version of `transformers`."""

from collections.abc import Mapping
from typing import Any

from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.siglip import SiglipConfig
from flowjax_convert.check.peer import CheckedPrompt, Peer
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, norm
from flowjax_convert.families.llava_onevision import siglip_rules
from flowjax_convert.mapping import Ignored, Rule, TensorTable, transposed

TOWER = "model.vision_model."
DECODER, HEAD = "model.text_model.", "lm_head"


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    vision = config.vision
    assert isinstance(vision, SiglipConfig)
    projection = "model.connector.modality_projection.proj.weight"
    return TensorTable(
        rules=(
            *siglip_rules(vision.layers, TOWER),
            *norm(f"{TOWER}post_layernorm", "vision/output_norm"),
            Rule(projection, "projector/linear/kernel", transposed),
            *decoder_rules(config.decoder, DECODER, HEAD),
        ),
        ignored=(
            Ignored(f"{TOWER}embeddings.position_ids", "a buffer: 0, 1, 2, ..."),
            *decoder_ignored(DECODER),
        ),
        tied=decoder_tied(config.decoder, DECODER, HEAD),
    )


def batched_pixels(prompt: CheckedPrompt) -> Mapping[str, Any]:
    """Frames as the images of one prompt: float32 [1, t, channels, h, w]."""
    return {"pixel_values": prompt.pixel_values[None]}


PEERS = {
    "smolvlm": Peer(
        "SmolVLMForConditionalGeneration",
        batched_pixels,
        "model.connector",
    )
}
