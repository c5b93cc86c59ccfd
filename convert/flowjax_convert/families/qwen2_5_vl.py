"""Qwen2.5-VL checkpoints, with the keys of released ones or of `transformers`' modules."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array

from flowjax.models.video_llm import VideoLLM, VideoLLMConfig
from flowjax.models.vision.qwen2_5_vl import Qwen25Vision, Qwen25VisionConfig, frame_windows
from flowjax_convert.check.peer import CheckedPrompt, Peer, timed_patch_pixels
from flowjax_convert.decoder_rules import decoder_ignored, decoder_rules, decoder_tied, linear
from flowjax_convert.mapping import LAYER, Rule, Spelling, TensorTable, deep_patches, transposed

VISION, DECODER = "visual.", "model."


def tensor_table(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The table of one model; see `flowjax_convert.mapping`."""
    del fields
    vision = config.vision
    assert isinstance(vision, Qwen25VisionConfig)
    norm = Rule(f"{VISION}merger.ln_q.weight", "projector/norm/scale")
    return merged_table(config, (*vision_rules(vision), norm))


def merged_table(config: VideoLLMConfig, rules: Iterable[Rule]) -> TensorTable:
    """Of a vision encoder, a merger of two linear layers, and a decoder, with Qwen2-VL's keys.

    rules: of the vision encoder, and of the norm before the merger.
    """
    return TensorTable(
        rules=(
            *rules,
            *linear(f"{VISION}merger.mlp.0", "projector/linear_1"),
            *linear(f"{VISION}merger.mlp.2", "projector/linear_2"),
            *decoder_rules(config.decoder, DECODER),
        ),
        ignored=decoder_ignored(DECODER),
        tied=decoder_tied(config.decoder, DECODER),
        spellings=(
            Spelling(VISION, "model.visual."),
            Spelling(DECODER, "model.language_model."),
        ),
    )


def vision_rules(vision: Qwen25VisionConfig) -> Iterator[Rule]:
    """Rules of the vision encoder."""
    patch = f"{VISION}patch_embed.proj.weight"
    yield Rule(patch, "vision/patch_embedding/kernel", deep_patches)
    layer, target = f"{VISION}blocks.{LAYER}", "vision/layers"
    yield Rule(f"{layer}.norm1.weight", f"{target}/attention_norm/scale")
    yield Rule(f"{layer}.norm2.weight", f"{target}/mlp_norm/scale")
    yield from fused_qkv(f"{layer}.attn.qkv", target, vision.width)
    yield from linear(f"{layer}.attn.proj", f"{target}/output")
    for name in ("gate", "up", "down"):
        yield from linear(f"{layer}.mlp.{name}_proj", f"{target}/{name}")


def fused_qkv(source: str, target: str, width: int) -> Iterator[Rule]:
    """Weight and bias of query, key and value in one linear layer, `width` rows each."""
    for index, name in enumerate(("query", "key", "value")):
        rows = (index * width, (index + 1) * width)
        yield Rule(f"{source}.weight", f"{target}/{name}/kernel", transposed, rows=rows)
        yield Rule(f"{source}.bias", f"{target}/{name}/bias", rows=rows)


def in_windows(model: VideoLLM, features: Array, prompt: CheckedPrompt) -> Array:
    """Features in the order of the windows, in which the merger of `transformers` reads them."""
    assert isinstance(model.vision, Qwen25Vision)
    rows, columns = prompt.pixel_values.shape[1:3]
    config = model.vision.config
    patch = np.asarray(frame_windows(rows, columns, config.window, config.merge).patch)
    return features[:, patch[patch >= 0]]


PEERS = {
    "qwen2_5_vl": Peer(
        "Qwen2_5_VLForConditionalGeneration", timed_patch_pixels, "model.visual.merger", in_windows
    )
}
