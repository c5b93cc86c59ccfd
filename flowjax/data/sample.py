"""A question about a video, as benchmarks and the command line give it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowjax.data.frame_rate import AtRate
from flowjax.data.prompt import Question

Clock = Literal["display", "rate"]
"""How seconds of a video become frames.

display: the frame shown nearest to that moment. rate: frame round(seconds * fps), as PLLaVA's
loader has it. At a constant frame rate both give the same frame; where frames are shown for
different times, only the display times lead to what is on the screen at that moment.
"""


UNREADABLE = Question("(could not be read)", ())
"""What is asked by a sample that has a problem."""


@dataclass(frozen=True)
class Prepared:
    """Where the frames of a clip are stored; see `flowjax.data.prepared`.

    shard, place: the file, and which of its records.
    frames: how many were chosen of the clip, or what chose them.
    """

    shard: Path
    place: int
    frames: int | AtRate


@dataclass(frozen=True)
class Sample:
    """One question about one video.

    video: a file, or a folder of frames.
    start, end: seconds of the video that the question is about; None for its ends.
    by: how they become frames.
    rate: frames a second of a folder of frames.
    reference: the true answer to an open question; empty where it is not known.
    subtitles: a file of them, where there is one.
    prepared: where its frames are, if they are not to be decoded.
    problem: why it cannot be asked, if its benchmark's file, which `video` is then, says so.
    """

    sample_id: str
    task: str
    video: Path
    question: Question
    start: int | float | None = None
    end: int | float | None = None
    by: Clock = "display"
    rate: float | None = None
    reference: str = ""
    subtitles: Path | None = None
    prepared: Prepared | None = None
    problem: str = ""
