"""A question about a video, as benchmarks and the command line give it."""

from dataclasses import dataclass
from pathlib import Path

from flowjax.data.prompt import Question


@dataclass(frozen=True)
class Sample:
    """One question about one video.

    start, end: seconds of the video that the question is about; None for its ends.
    """

    sample_id: str
    task: str
    video: Path
    question: Question
    start: int | float | None = None
    end: int | float | None = None
