"""What a plan must know of the data: how many questions, and how long a typical one is."""

import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from flowjax.data.benchmark import benchmarks, read_benchmark
from flowjax.data.prompt import Question
from flowjax.errors import FlowjaxError

STEM = "What does the person in the video do right after the table has been cleared?"
OPTIONS = (
    "The person opens the window.",
    "The person leaves the room.",
    "The person sits down again.",
    "The person takes a book.",
)
FORM = "write a benchmark and how many questions, such as tvbench:2500, or its folder"


@dataclass(frozen=True)
class Data:
    """What is asked.

    name: in what is printed.
    samples: how many questions.
    question: as long as a typical one.
    assumed: whether that is a guess, and not the median of the questions in a folder.
    """

    name: str
    samples: int
    question: Question
    assumed: bool


def data_of(text: str) -> Data:
    """Read `"tvbench:2500"`, or the questions of a folder.

    Raises:
        FlowjaxError: neither a known benchmark with a number nor a folder of one.
    """
    if match := re.fullmatch(r"([a-z0-9_-]+):([1-9]\d{0,8})", text):
        name = match[1].replace("-", "_")
        if name not in benchmarks():
            known = ", ".join(name for name in sorted(benchmarks()) if name != "table")
            raise FlowjaxError(f"--data {text!r}: the benchmarks are {known}")
        return Data(text, int(match[2]), Question(STEM, OPTIONS, "B"), True)
    path = Path(text)
    if not path.exists():
        raise FlowjaxError(f"--data {text!r}: {FORM}")
    samples = read_benchmark(path)
    good = [sample for sample in samples if not sample.problem and sample.question.answer]
    if not good:
        raise FlowjaxError(f"--data {text}: no question of it can be read, with its answer")
    lengths = [_length(sample.question) for sample in good]
    middle = statistics.median_low(lengths)
    return Data(path.name, len(good), good[lengths.index(middle)].question, False)


def _length(question: Question) -> int:
    return len(question.stem) + sum(map(len, question.options))
