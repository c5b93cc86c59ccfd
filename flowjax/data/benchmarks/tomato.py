"""TOMATO (Shangguan et al. 2024, arXiv 2410.23266): whether models reason over several frames.

Repository github.com/yale-nlp/TOMATO (CC BY-SA 4.0), with the videos that it links to unpacked.

    DIR/data/<task>.json     objects by running number: question, options, answer (the number of
                             the true option, from 0), demonstration_type, key
    DIR/videos/<demonstration_type>/<key>.mp4     human, object or simulated
"""

from pathlib import Path

from flowjax.data.benchmark import Benchmark, Rows
from flowjax.data.entry import Entry, Fields, inside
from flowjax.data.json_lists import keyed_rows, task_files


def rows(root: Path, task: str, file: Path) -> Rows:
    """The entries of one task."""
    del root
    return keyed_rows(file, lambda fields: entry(task, fields))


def entry(task: str, value: object) -> Entry:
    """One question."""
    fields = Fields(value, "question, options, answer, demonstration_type and key")
    options = fields.options("options")
    kind = fields.path("demonstration_type", "videos")
    return Entry(
        task,
        fields.text("question"),
        options,
        fields.letter_of_index("answer", options),
        inside(f"{fields.text('key')}.mp4", "key", kind),
    )


BENCHMARK = Benchmark(
    name="tomato",
    needs="data/<task>.json and videos/<demonstration_type>/<key>.mp4",
    accepts=lambda path: bool(task_files(path / "data")) and (path / "videos").is_dir(),
    files=lambda path: task_files(path / "data"),
    rows=rows,
)
