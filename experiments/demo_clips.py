"""Four short videos of moving shapes, each with a multiple-choice question, for the demo."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from flowjax.data.encode import write_mp4
from flowjax.errors import FlowjaxError

SIZE = 96  # pixels
COUNT, FPS = 24, 10

_Colour = tuple[int, int, int]
_RED, _GREEN, _BLUE = (210, 45, 45), (40, 150, 70), (45, 80, 190)
_YELLOW, _WHITE, _GREY = (240, 205, 60), (245, 245, 245), (190, 190, 190)
_X, _Y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))


@dataclass(frozen=True)
class DemoSample:
    """A video with a multiple-choice question about it.

    task: the kind of question, as benchmarks name it.
    answer: letter of the true option.
    """

    sample_id: str
    video: Path
    task: str
    question: str
    options: tuple[str, ...]
    answer: str


def write_demo_clips(folder: Path) -> tuple[DemoSample, ...]:
    """Write the videos as MP4 files into `folder`, which is made if it does not exist.

    Raises:
        FlowjaxError: `folder` cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlowjaxError(f"{folder} cannot be made: {error.strerror}") from error
    samples = []
    for task, (draw, question, options, answer) in _CLIPS.items():
        path = folder / f"{task}.mp4"
        frames = np.stack([draw(index / (COUNT - 1)) for index in range(COUNT)])
        write_mp4(path, frames, FPS)
        samples.append(DemoSample(task, path, task, question, options, answer))
    return tuple(samples)


_Frame = UInt8[np.ndarray, "size size 3"]


def _background(colour: _Colour) -> _Frame:
    return np.full((SIZE, SIZE, 3), colour, np.uint8)


def _square(x: float, y: float, half: float) -> Bool[np.ndarray, "size size"]:
    return (abs(_X - x) <= half) & (abs(_Y - y) <= half)


def _disc(x: float, y: float, radius: float) -> Bool[np.ndarray, "size size"]:
    return (_X - x) ** 2 + (_Y - y) ** 2 <= radius**2


def _moving_direction(time: float) -> _Frame:
    """`time` goes from 0 to 1, here and below."""
    frame = _background(_GREY)
    frame[_square(14 + 68 * time, 48, 10)] = _RED
    return frame


def _scene_transition(time: float) -> _Frame:
    frame = _background(_BLUE if time < 0.5 else _GREEN)
    frame[_disc(48, 30 + 36 * time, 12)] = _WHITE
    return frame


def _action_sequence(time: float) -> _Frame:
    """A disc rises in the first half; a square falls in the second."""
    frame = _background(_GREY)
    frame[_disc(26, 78 - 60 * min(2 * time, 1), 11)] = _YELLOW
    frame[_square(70, 18 + 60 * max(2 * time - 1, 0), 10)] = _BLUE
    return frame


def _object_count(time: float) -> _Frame:
    frame = _background(_WHITE)
    for index in range(3):
        turn = 2 * np.pi * (index / 3 + time / 2)
        frame[_disc(48 + 27 * np.cos(turn), 48 + 27 * np.sin(turn), 10)] = _GREEN
    return frame


_CLIPS: dict[str, tuple[Callable[[float], _Frame], str, tuple[str, ...], str]] = {
    "moving_direction": (
        _moving_direction,
        "In which direction does the red square move?",
        ("To the left.", "To the right.", "Up.", "Down."),
        "B",
    ),
    "scene_transition": (
        _scene_transition,
        "How does the background change?",
        ("From blue to green.", "From green to blue.", "From red to green.", "It does not change."),
        "A",
    ),
    "action_sequence": (
        _action_sequence,
        "What happens in the video?",
        (
            "The blue square falls, then the yellow disc rises.",
            "The yellow disc falls, then the blue square rises.",
            "The blue square rises, then the yellow disc falls.",
            "The yellow disc rises, then the blue square falls.",
        ),
        "D",
    ),
    "object_count": (
        _object_count,
        "How many green discs are in the video?",
        ("One.", "Two.", "Three.", "Four."),
        "C",
    ),
}
