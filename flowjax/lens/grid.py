"""Where a frame's video tokens lie in its picture."""

import numpy as np
from jaxtyping import Int

from flowjax.layout import EncodedPrompt
from flowjax.models.video_llm import VideoLLMConfig


def frame_grids(
    config: VideoLLMConfig, prompt: EncodedPrompt, pixels: tuple[int, ...]
) -> Int[np.ndarray, "frames rows columns"]:
    """Position of the token of every grid place of every frame.

    Text among the frames, such as timestamps, is in none, nor is a token that closes the video.

    Args:
        config: of the model, whose projector says where its tokens come from.
        prompt: a question to it.
        pixels: shape of the prompt's pixel values.
    """
    frames = len(prompt.layout.cells_of("video"))
    return config.projector.places(prompt.video_position, frames, pixels)
