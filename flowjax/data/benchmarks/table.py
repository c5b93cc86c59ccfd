"""A table of questions of one's own: JSON lines, CSV or Parquet.

    DIR/questions.jsonl        (or .csv, or .parquet; or another name, given as `--data FILE`)
    DIR/<video>

| column     | what it holds                                                                     |
| ---------- | --------------------------------------------------------------------------------- |
| `video`    | path of the video in DIR, or of a folder of frames (pictures in order)            |
| `question` | the question, without its options                                                 |
| `options`  | a list of texts; in CSV, a JSON list. None, or empty: the question is open        |
| `answer`   | the true option's letter, or its text; of an open question the true answer.       |
|            | May be missing where it is not known                                              |
| `start`    | seconds, where only a part of the video is asked about                            |
| `end`      | seconds                                                                           |
| `task`     | the question's task; the file's name where there is none                          |
| `fps`      | frames a second of a folder of frames                                             |
| `subtitles`| path of a file in DIR                                                             |

Other columns are left alone.
"""

import json
from pathlib import Path

from flowjax.data.benchmark import Benchmark, Rows
from flowjax.data.entry import Entry, Fields
from flowjax.data.prompt import LETTERS
from flowjax.data.tables import ENDINGS, table_rows
from flowjax.errors import FlowjaxError

NAME = "questions"


def files(path: Path) -> dict[str, Path]:
    """The file of questions, itself or in its folder."""
    if path.is_file():
        return {path.stem: path} if path.suffix.lower() in ENDINGS else {}
    there = (path / f"{NAME}{ending}" for ending in ENDINGS)
    found = [(NAME, file) for file in there if file.is_file()]
    return dict(found[:1])


def rows(root: Path, name: str, file: Path) -> Rows:
    """The entries of the file."""
    del root
    return table_rows(file, lambda value: entry(name, value))


def entry(task: str, value: object) -> Entry:
    """One question; `task` is its task where it names none."""
    fields = Fields(_listed(value), "video, question and answer")
    options = fields.options("options") if fields.has("options") else ()
    answer, reference = "", ""
    if fields.has("answer"):
        answer = fields.text("answer")
        if not options:
            answer, reference = "", answer
        elif answer not in options and answer in LETTERS[: len(options)]:
            answer = fields.letter("answer", options)
        else:
            answer = fields.letter_of_text("answer", options, "options or a letter")
    return Entry(
        fields.optional("task", task),
        fields.text("question"),
        options,
        answer,
        fields.path("video"),
        fields.seconds("start"),
        fields.seconds("end"),
        fields.seconds("fps"),
        reference,
        fields.path("subtitles") if fields.has("subtitles") else "",
    )


def _listed(value: object) -> object:
    """An entry whose options, where they are text, are read as JSON; without those of no length."""
    if not isinstance(value, dict):
        return value
    options = value.get("options")
    if isinstance(options, str) and options.strip():
        try:
            options = json.loads(options)
        except (ValueError, RecursionError):
            raise FlowjaxError(f"options {options!r} must be a JSON list of texts") from None
    return {**value, "options": options or None}


BENCHMARK = Benchmark(
    name="table",
    needs="questions.jsonl, questions.csv or questions.parquet (see docs/benchmarks.md)",
    accepts=lambda path: bool(files(path)),
    files=files,
    rows=rows,
)
