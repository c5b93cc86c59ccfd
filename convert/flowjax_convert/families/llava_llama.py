"""LLaVA checkpoints in their original layout, with a Llama or Mistral decoder."""

from collections.abc import Mapping
from typing import Any

from flowjax.models.families.llava_llama import LARGE_336
from flowjax.models.families.pllava import clip_layers
from flowjax.models.spatial_pool import StridedPoolConfig
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.clip import ClipConfig
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear
from flowjax_convert.families.llava_qwen import NEWLINE, PROJECTOR, TOWER
from flowjax_convert.families.pllava import clip_rules, tower_ignored
from flowjax_convert.mapping import Ignored, Rule, TensorTable, patches

POOL = "model.vision_resampler.pool"
OUTSIDE = (
    "this checkpoint does not hold its vision tower, which the released code loads by the name in "
    "mm_vision_tower; take the same release in the layout of transformers (llava-hf), or add the "
    "tower's tensors to the folder under these keys"
)


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    vision, projector = config.vision, config.projector
    assert isinstance(vision, ClipConfig)
    strided = isinstance(projector, StridedPoolConfig)
    pool = (
        Rule(f"{POOL}.weight", "projector/pool/kernel", patches),
        Rule(f"{POOL}.bias", "projector/pool/bias"),
    )
    mlp = "projector/mlp" if strided else "projector"
    newline = "ends the rows of tiled images; no newline stands in this model's videos"
    return TensorTable(
        rules=(
            *clip_rules(clip_layers(fields.get("vision_config") or LARGE_336), TOWER),
            *(pool if strided and projector.mode == "conv" else ()),
            *linear(f"{PROJECTOR}0", f"{mlp}/linear_1"),
            *linear(f"{PROJECTOR}2", f"{mlp}/linear_2"),
            *decoder_rules(config.decoder),
        ),
        ignored=(
            *tower_ignored(vision.width, TOWER),
            *decoder_ignored(),
            Ignored(NEWLINE, newline, (config.decoder.width,)),
        ),
        tied=decoder_tied(config.decoder),
        absent={TOWER: OUTSIDE},
    )
