"""What the configurations of LLaVA's later video models have in common."""

import dataclasses

from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.activations import Activation, read_activation
from flowjax.models.decoder import DecoderConfig

FRAMES = 32
"""Frames of a video where `num_frames` is not in the configuration, which is not in released ones.

The released models were trained with 32.
"""

STILLS = (
    Unread(
        (
            "image_grid_pinpoints", "vision_aspect_ratio", "use_image_newline_parameter",
            "image_seq_length", "video_seq_length",
        ),
        "the tiling of large still images, and the processors' counts of tokens",
        "transformers.LlavaNextVideoModel and LlavaOnevisionModel: a video's features are read "
        "without them",
    ),
    Unread(
        ("image_token_index", "image_token_id"),
        "the token of still images",
        "transformers.LlavaNextVideoConfig and LlavaOnevisionConfig",
    ),
)  # fmt: skip
"""Fields about still images, which a video does not read."""


DECODERS = ("llama", "mistral")
"""The decoders of LLaVA-NeXT; the second marks turns in another way."""


def turns(conversation: str) -> tuple[str, str]:
    """What stands before the user's turn and before the answer: Mistral's marks, or Vicuna's."""
    return ("[INST] ", " [/INST]") if conversation == "mistral" else ("USER: ", " ASSISTANT:")


def read_tied(top: HFConfig, decoder: DecoderConfig) -> DecoderConfig:
    """The decoder with tied embeddings if the whole model or its text part asks for them."""
    tied = top.take("tie_word_embeddings", bool, False)
    return dataclasses.replace(decoder, tied_embeddings=tied or decoder.tied_embeddings)


def read_projector_activation(top: HFConfig) -> Activation:
    """Take what the configuration says of the two linear layers."""
    top.expect("multimodal_projector_bias", True)
    field = "projector_hidden_act"
    return read_activation(top.take(field, str, "gelu"), top.name(field))


def read_frames(top: HFConfig, side: int) -> int:
    """Take the number of frames; a pooling shape must be the one that the model has.

    side: rows, and columns, of video tokens of a frame.
    """
    frames = top.positive("num_frames", FRAMES)
    if "pooling_shape" in top and top.shape("pooling_shape", 3) != (frames, side, side):
        raise FlowjaxError(
            f"{top.name('pooling_shape')} must be {[frames, side, side]} in this model: frames, "
            "and rows and columns of video tokens"
        )
    return frames


def read_placeholder(
    top: HFConfig,
    default: int,
    vocabulary: int,
    names: tuple[str, ...] = ("video_token_id", "video_token_index"),
) -> int:
    """Take the id that stands for a video, of the first of `names` that is there.

    Raises:
        FlowjaxError: it is not a token of the decoder.
    """
    field = next((name for name in names if name in top), names[-1])
    placeholder = top.positive(field, default)
    if placeholder >= vocabulary:
        raise FlowjaxError(
            f"{top.name(field)} is {placeholder}; the decoder has {vocabulary} tokens"
        )
    return placeholder
