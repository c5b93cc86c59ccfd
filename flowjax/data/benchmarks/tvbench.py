"""TVBench (Cores et al. 2024, arXiv 2410.07752): ten tasks that one frame or the text cannot solve.

Repository github.com/daniel-cores/tvbench, data set FunAILab/TVBench on the hub; CC BY 4.0, the
videos under the licences of their sources. flowjax's own benchmark of shapes has this layout, too.

    DIR/json/<task>.json     a list of objects: question, candidates, answer (the text of the true
                             candidate), video; for some tasks start and end, in seconds
    DIR/video/<task>/<video>

An entry without candidates is open, and its answer the text that is compared: the benchmark's
open-ended form.
"""

from pathlib import Path

from flowjax.data.benchmark import Benchmark, Rows
from flowjax.data.benchmarks.mvbench import is_mvbench
from flowjax.data.entry import Entry, Fields
from flowjax.data.json_lists import json_rows, task_files


def rows(root: Path, task: str, file: Path) -> Rows:
    """The entries of one task."""
    del root
    return json_rows(file, lambda fields: entry(task, file.stem, fields))


def entry(task: str, folder: str, value: object) -> Entry:
    """One question; videos lie in `video/folder`."""
    fields = Fields(value, "question, candidates, answer and video")
    question = fields.text("question")
    options, letter, reference = (), "", ""
    if fields.has("candidates"):
        options = fields.options("candidates")
        letter = fields.letter_of_text("answer", options, "candidates")
    else:
        reference = fields.text("answer")
    video = fields.path("video", f"video/{folder}", "the task's folder")
    start, end = fields.seconds("start"), fields.seconds("end")
    return Entry(task, question, options, letter, video, start, end, reference=reference)


BENCHMARK = Benchmark(
    name="tvbench",
    needs="json/<task>.json and video/<task>/",
    accepts=lambda path: bool(task_files(path / "json")) and not is_mvbench(path),
    files=lambda path: task_files(path / "json"),
    rows=rows,
)
