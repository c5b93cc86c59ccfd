"""One entry of a benchmark's file: its fields, checked, and the question that they make.

What a file holds is data: nothing of it is executed or rendered, and no path leaves the
benchmark's folder.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from flowjax.data.prompt import LETTERS, Question, check_text
from flowjax.errors import FlowjaxError


@dataclass(frozen=True)
class Entry:
    """A question about a video, as its benchmark asks it.

    options: none where it is open.
    answer: the true option's letter; empty where it is open or not known.
    reference: the true answer to an open question.
    video: path in the benchmark's folder, of a file or of a folder of frames.
    start, end: seconds; NaN for the video's own.
    rate: frames a second of a folder of frames; NaN of a file.
    subtitles: path of a file in the benchmark's folder; empty where there is none.
    """

    task: str
    question: str
    options: tuple[str, ...]
    answer: str
    video: str
    start: float = math.nan
    end: float = math.nan
    rate: float = math.nan
    reference: str = ""
    subtitles: str = ""

    def __post_init__(self) -> None:
        """Check that it can be asked.

        Raises:
            FlowjaxError: names the part that is not well formed.
        """
        Question(self.question, self.options, self.answer or None)
        check_text(self.task, "the task")


class Fields:
    """The fields of an entry, by name."""

    def __init__(self, fields: object, wanted: str) -> None:
        """Take an entry.

        Args:
            fields: the entry.
            wanted: the fields that it must have, in words.

        Raises:
            FlowjaxError: it is no object.
        """
        if not isinstance(fields, Mapping):
            raise FlowjaxError(f"must be an object with {wanted}")
        self._fields: Mapping[str, Any] = fields

    def has(self, name: str) -> bool:
        """Whether there is such a field, with a value."""
        return self._fields.get(name) not in (None, "")

    def text(self, name: str) -> str:
        """A text, or a whole number as one.

        Raises:
            FlowjaxError: it is something else, or blank.
        """
        value = self._fields.get(name)
        if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
            raise FlowjaxError(f"{name} must be a text; it is {value!r}")
        check_text(str(value), name)
        return str(value)

    def optional(self, name: str, default: str = "") -> str:
        """A text, where there is one."""
        return self.text(name) if self.has(name) else default

    def options(self, name: str) -> tuple[str, ...]:
        """Two or more texts.

        Raises:
            FlowjaxError: something else.
        """
        value = self._fields.get(name)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise FlowjaxError(f"{name} must be a list of texts")
        if not all(isinstance(one, str | int | float) for one in value):
            raise FlowjaxError(f"{name} must be a list of texts")
        texts = tuple(str(one) for one in value)
        if not 2 <= len(texts) <= len(LETTERS):
            raise FlowjaxError(f"{name} must be 2 to {len(LETTERS)}; it has {len(texts)}")
        return texts

    def letter_of_text(self, name: str, options: Sequence[str], what: str) -> str:
        """The letter of the option that a field repeats; the options are called `what`.

        Raises:
            FlowjaxError: no option is that text, or several are.
        """
        answer = self.text(name)
        if answer not in options:
            raise FlowjaxError(f"{name} {answer!r} must be one of the {what}")
        if options.count(answer) > 1:
            raise FlowjaxError(f"{what} has {answer!r} {options.count(answer)} times")
        return LETTERS[options.index(answer)]

    def letter_of_index(self, name: str, options: Sequence[str]) -> str:
        """The letter of the option whose number, from 0, a field holds.

        Raises:
            FlowjaxError: it is no number of an option.
        """
        value = self._fields.get(name)
        index = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
        if type(index) is not int or not 0 <= index < len(options):
            raise FlowjaxError(
                f"{name} {value!r} must be the number of an option, 0 to {len(options) - 1}"
            )
        return LETTERS[index]

    def letter(self, name: str, options: Sequence[str]) -> str:
        """The letter of an option.

        Raises:
            FlowjaxError: it is none.
        """
        value = self.text(name).strip()
        if len(value) != 1 or value not in LETTERS[: len(options)]:
            raise FlowjaxError(
                f"{name} {value!r} must be the letter of an option, A to "
                f"{LETTERS[len(options) - 1]}"
            )
        return value

    def seconds(self, name: str) -> float:
        """A number of seconds; NaN where there is none.

        Raises:
            FlowjaxError: it is something else.
        """
        value = self._fields.get(name)
        if value is None or value == "":
            return math.nan
        seconds = math.inf
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):
                seconds = float(value)
        if not math.isfinite(seconds):
            raise FlowjaxError(f"{name} must be a number of seconds; it is {value!r}")
        return seconds

    def path(self, name: str, folder: str = "", where: str = "the benchmark's folder") -> str:
        """A path in a folder of the benchmark, called `where` in errors.

        Raises:
            FlowjaxError: it leads out of that folder.
        """
        return inside(self.text(name), name, folder, where)


def inside(text: str, name: str, folder: str = "", where: str = "the benchmark's folder") -> str:
    """`folder/text`, where that stays in the folder.

    Raises:
        FlowjaxError: it does not.
    """
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\0" in text:
        raise FlowjaxError(f"{name} {text!r} must lie in {where}")
    return str(PurePosixPath(folder) / path)
