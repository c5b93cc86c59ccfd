"""VideoLLaMA3 checkpoints as `transformers` writes them."""

from collections.abc import Mapping
from typing import Any

from flowjax.models.video_llm import VideoLLMConfig
from flowjax_convert.check.peer import Peer, patch_pixels
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear
from flowjax_convert.families.videollama3 import siglip_navit_rules
from flowjax_convert.mapping import TensorTable

QWEN2 = "model.language_model."


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    del fields
    return TensorTable(
        rules=(
            *siglip_navit_rules("model.vision_model."),
            *linear("model.projector.readout.0", "projector/linear_1"),
            *linear("model.projector.readout.2", "projector/linear_2"),
            *decoder_rules(config.decoder, QWEN2),
        ),
        ignored=decoder_ignored(QWEN2),
        tied=decoder_tied(config.decoder, QWEN2),
    )


PEERS = {
    "video_llama_3": Peer("VideoLlama3ForConditionalGeneration", patch_pixels, "model.projector")
}
