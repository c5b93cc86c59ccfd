"""Instructions about videos in the layout of VideoChat2-IT (Li et al. 2023, arXiv 2311.17005).

Repository github.com/OpenGVLab/Ask-Anything, data huggingface.co/datasets/OpenGVLab/VideoChat2-IT.
An annotation file is a list of objects::

    {"video": "a/b.mp4", "QA": [{"i": "Answer in a word.", "q": "What falls?", "a": "A cup."}]}

`video` is a path in a folder that is given besides. `i` says how to answer, and may be absent or
empty; so may `q`, where `i` says all (captions). With `start` and `end`, in seconds, an entry is
about that part of its video.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowjax.data.entry import Fields
from flowjax.data.json_lists import json_list
from flowjax.data.samples import found, given
from flowjax.errors import FlowjaxError


@dataclass(frozen=True)
class Turn:
    """A question with its instruction before it, and the answer that is learned."""

    question: str
    answer: str


@dataclass(frozen=True)
class Instructions:
    """What is asked of one video, or of a part of it.

    name: the file and the entry, for errors.
    start, end: seconds of the video; None for its ends.
    """

    name: str
    video: Path
    turns: tuple[Turn, ...]
    start: float | None = None
    end: float | None = None


def read_instructions(file: Path, videos: Path) -> list[Instructions]:
    """The entries of an annotation file, in order; no video is opened.

    Args:
        file: of annotations.
        videos: the folder that its videos' paths are in.

    Raises:
        FlowjaxError: names the file, the entry and the field that is not well formed.
    """
    entries = []
    for index, value in enumerate(json_list(file)):
        try:
            entries.append(_entry(value, f"{file}: entry {index}", videos))
        except FlowjaxError as error:
            raise FlowjaxError(f"{file}: entry {index}: {error}") from None
    return entries


def _entry(value: object, name: str, videos: Path) -> Instructions:
    fields = Fields(value, "video and QA")
    path = fields.path("video", where="the folder of videos")
    asked = value.get("QA") if isinstance(value, dict) else None
    if not isinstance(asked, Sequence) or isinstance(asked, str) or not asked:
        raise FlowjaxError("QA must be a list of objects with q and a")
    turns = []
    for index, one in enumerate(asked):
        try:
            turns.append(_turn(Fields(one, "q and a")))
        except FlowjaxError as error:
            raise FlowjaxError(f"QA {index}: {error}") from None
    start, end = given(fields.seconds("start")), given(fields.seconds("end"))
    return Instructions(name, found(videos / path), tuple(turns), start, end)


def _turn(fields: Fields) -> Turn:
    parts = [fields.text(name).strip() for name in ("i", "q") if fields.has(name)]
    if not parts:
        raise FlowjaxError("q is missing, and there is no i in its place")
    return Turn("\n".join(parts), fields.text("a").strip())
