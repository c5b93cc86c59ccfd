"""TempCompass (Liu et al. 2024, arXiv 2403.00476): action, direction, speed, order, change.

Repository github.com/llyx97/TempCompass (CC BY-NC 4.0), its questions and videos. Its multiple-
choice questions are read; the tasks are the five aspects.

    DIR/questions/multi-choice.json   objects by video; each holds by aspect a list of objects:
                                      question (its options in lines "A. ..."), answer ("A. ...")
    DIR/videos/<video>.mp4
"""

import re
from collections.abc import Mapping
from pathlib import Path

from flowjax.data.benchmark import Benchmark, Rows
from flowjax.data.entry import Entry, Fields, inside
from flowjax.errors import FlowjaxError
from flowjax.files import read_json

FILE = "questions/multi-choice.json"
OPTION = re.compile(r"^\s*([A-Z])\.\s*(.*\S)\s*$")


def rows(root: Path, name: str, file: Path) -> Rows:
    """The entries of the file, video by video."""
    del root, name
    for video, aspects in read_json(file).items():
        if not isinstance(aspects, Mapping):
            raise FlowjaxError(f"{file}: {video!r} must hold questions by aspect")
        for aspect, entries in aspects.items():
            if not isinstance(entries, list):
                raise FlowjaxError(f"{file}: {video!r}: {aspect!r} must hold a list of questions")
            for index, value in enumerate(entries):
                where = f"entry {video!r} {aspect!r} {index}"
                yield where, lambda v=video, a=aspect, value=value: entry(v, a, value)


def entry(video: str, aspect: str, value: object) -> Entry:
    """One question, taken apart from its options."""
    fields = Fields(value, "question and answer")
    stem, *lines = fields.text("question").strip().split("\n")
    found = [match for line in lines if (match := OPTION.match(line))]
    letters = "".join(match[1] for match in found)
    if len(found) != len(lines) or letters != "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(found)]:
        raise FlowjaxError("question must have its options in lines A., B., ... after it")
    options = Fields({"options": [match[2] for match in found]}, "").options("options")
    answer = Fields({"answer": fields.text("answer")[:1]}, "").letter("answer", options)
    return Entry(aspect, stem, options, answer, inside(f"{video}.mp4", "video", "videos"))


BENCHMARK = Benchmark(
    name="tempcompass",
    needs=f"{FILE} and videos/",
    accepts=lambda path: (path / FILE).is_file(),
    files=lambda path: {"multi-choice": path / FILE},
    rows=rows,
)
