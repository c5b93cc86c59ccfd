"""Where a frame's video tokens lie in its picture."""

import math

import numpy as np
from jaxtyping import Int

from flowjax.layout import EncodedPrompt
from flowjax.models.pixel_shuffle import PixelShuffleConfig
from flowjax.models.projector import PoolingProjectorConfig
from flowjax.models.video_llm import VideoLLMConfig

_OF_PATCHES = 5
"""Axes of the pixel values of families that read whole frames: the second and third are blocks."""


def frame_grids(
    config: VideoLLMConfig, prompt: EncodedPrompt, pixels: tuple[int, ...]
) -> Int[np.ndarray, "frames rows columns"]:
    """Position of the token of every grid place of every frame.

    Text among the frames, such as timestamps, is in none, nor is a token that closes the video.

    Args:
        config: of the model.
        prompt: a question to it.
        pixels: shape of the prompt's pixel values.
    """
    frames = len(prompt.layout.cells_of("video"))
    rows, columns = _sides(config, pixels)
    tokens = prompt.video_position[: frames * rows * columns]
    if isinstance(config.projector, PixelShuffleConfig) and config.projector.transposed:
        return tokens.reshape(frames, columns, rows).transpose(0, 2, 1)
    return tokens.reshape(frames, rows, columns)


def _sides(config: VideoLLMConfig, pixels: tuple[int, ...]) -> tuple[int, int]:
    if len(pixels) == _OF_PATCHES:
        return pixels[1], pixels[2]
    if isinstance(config.projector, PoolingProjectorConfig):
        return config.projector.pooling[1], config.projector.pooling[2]
    assert config.tokens_per_frame is not None
    side = math.isqrt(config.tokens_per_frame)
    return side, side
