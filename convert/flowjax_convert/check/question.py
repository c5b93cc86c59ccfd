"""The question that both sides are asked, and the knockouts under which they are."""

import dataclasses
from importlib import metadata
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flowjax.data.prompt import Question, VideoShape
from flowjax.data.shapes.paint import frames as painted
from flowjax.data.shapes.tasks import Draw, draw_question
from flowjax.data.video import read_frames
from flowjax.edges import Knockout, parse_edges
from flowjax.errors import FlowjaxError
from flowjax.layout import encode_prompt
from flowjax.models.loaded import LoadedModel
from flowjax_convert.check.peer import CheckedPrompt

SIDE = 224
"""Of its frames, in pixels."""

TOKENS = 16
"""Tokens to generate."""


def seconds_apart(count: int) -> float:
    """Between the frames of the clip that is made where no video is given.

    `transformers` 5 reads a clip of multimodal rotary embedding as the releases do where its time
    axis is not the longest, so that it lasts a second; `transformers` 4 where whole seconds lie
    between two temporal patches, of two frames each (4.57 rounds them down). See
    docs/checkpoints.md.
    """
    return 0.5 if metadata.version("transformers").startswith("4.") else 1.0 / count


def made_clip(count: int) -> tuple[UInt8[np.ndarray, "t h w 3"], tuple[float, ...], Question]:
    """A clip of a moving shape, always the same, with a question about it."""
    draw = Draw(np.random.default_rng(0), test=False)
    scene, question = draw_question("moving_direction", draw, 0)
    times = tuple(index * seconds_apart(count) for index in range(count))
    return painted(scene, count, SIDE), times, question


def read_question(
    loaded: LoadedModel, video: Path | None, question: str | None, options: tuple[str, ...]
) -> CheckedPrompt:
    """The prompt about a video of the user's, or about a clip that is made.

    Args:
        loaded: the converted model, whose parameters are not read.
        video: a video file; None makes a clip.
        question: about it; None asks that of the clip.
        options: of a multiple-choice question; none where it is open.

    Raises:
        FlowjaxError: options without a question, a rate without a video, or a video or question
            that cannot be read.
    """
    if question is None and options:
        raise FlowjaxError("--option needs --question")
    if loaded.video.fps is not None and video is None:
        raise FlowjaxError("--fps needs --video; the clip made without one has --frames")
    frames, timestamps, asked = made_clip(loaded.config.frames)
    duration = None
    if video is not None:
        clip = read_frames(video, loaded.frames)
        frames, timestamps = clip.frames, tuple(map(float, clip.timestamps))
        duration = clip.duration
    if question is not None:
        asked = Question(question, options)
    pixel_values = loaded.preprocess(frames)
    shape = VideoShape(pixel_values.shape, timestamps, duration)
    config = dataclasses.replace(loaded.config, frames=len(frames))
    text = loaded.family.prompt(config, asked, shape)
    encoded = encode_prompt(text, loaded.tokenizer)
    name = "a clip made for it" if video is None else video.name
    return CheckedPrompt(frames, timestamps, pixel_values, text, encoded, name)


def knockouts(prompt: CheckedPrompt, layers: int) -> tuple[Knockout, ...]:
    """Three knockouts in the middle half of the layers; none leaves a row without any source."""
    cells = prompt.encoded.layout.cells
    edges = (
        "cross_frame" if "frame_1" in cells else "instruction->last",
        "video->question",
        "video->last+question->last",
    )
    window = tuple(range(layers // 4, max(layers - layers // 4, layers // 4 + 1)))
    return tuple(Knockout(parse_edges(edge), window) for edge in edges)
