"""Benchmarks in the layout that TVBench is published in (Cores et al. 2024, arXiv 2410.07752).

    DIR/json/<task>.json     a list of objects: question, candidates, answer (the text of the true
                             candidate), video; for some tasks start and end, in seconds
    DIR/video/<task>/<video>

The questions pass through `tensorflow_datasets` (see `question_cache`); the videos stay where they
are. An entry or a file that is not well formed becomes a sample that cannot be asked and says why.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from flowjax.data.prompt import LETTERS, Question, check_text
from flowjax.data.question_cache import kept
from flowjax.data.sample import UNREADABLE, Sample
from flowjax.errors import FlowjaxError
from flowjax.files import printable, read_json_value


def read_tvbench(
    folder: Path, tasks: Sequence[str] = (), limit: int | None = None
) -> tuple[Sample, ...]:
    """The questions of a benchmark, task by task, in the order of its files.

    Args:
        folder: has `json/` and `video/`.
        tasks: names of files in `json/`, in the order wanted; all of them where empty. No other
            files are read.
        limit: the first so many questions of each task.

    Returns:
        One sample per entry. One that is not well formed has a `problem`, which names the file, the
        entry and the field; so has the only sample of a file that cannot be read. Videos are not
        opened.

    Raises:
        FlowjaxError: no such folder or task.
    """
    there = task_files(folder)
    for task in tasks:
        if task not in there:
            raise FlowjaxError(f"task {task!r} does not exist; {folder} has {', '.join(there)}")
    if limit is not None and limit < 1:
        raise FlowjaxError(f"limit {limit}: give at least 1 question per task")
    samples = []
    for task in tasks or there:
        samples += _read_task(task, there[task])[:limit]
    return tuple(samples)


def task_files(folder: Path) -> dict[str, Path]:
    """The files of a benchmark's tasks by name, sorted; one that begins with a dot is none.

    Raises:
        FlowjaxError: the folder has no `json/` with tasks in it.
    """
    files = (path for path in (folder / "json").glob("*.json") if not path.name.startswith("."))
    tasks = {printable(path.stem): path for path in sorted(files)}
    if not tasks:
        raise FlowjaxError(
            f"{folder} is not a benchmark in TVBench's layout: json/<task>.json is missing"
        )
    return tasks


def _read_task(task: str, path: Path) -> list[Sample]:
    try:
        entries = read_json_value(path)
        if not isinstance(entries, list) or not entries:
            raise FlowjaxError(f"{path} must hold a list of questions")
    except FlowjaxError as error:
        return [Sample(task, task, path, UNREADABLE, problem=str(error))]
    samples: list[Sample] = []
    good = []
    for index, entry in enumerate(entries):
        try:
            good.append({"entry": index, **_checked(entry)})
            problem = ""
        except FlowjaxError as error:
            problem = f"{path}: entry {index}: {error}"
        samples.append(Sample(f"{task}/{index}", task, path, UNREADABLE, problem=problem))
    videos = path.parent.parent / "video" / path.stem
    for fields in kept(good) if good else ():
        samples[fields["entry"]] = _sample(task, videos, fields)
    return samples


def _checked(entry: object) -> dict[str, Any]:
    """The features of `question_cache.TVBench`."""
    if not isinstance(entry, dict):
        raise FlowjaxError("must be an object with question, candidates, answer and video")
    values = {name: _text(entry, name) for name in ("question", "answer", "video")}
    candidates = entry.get("candidates")
    if not isinstance(candidates, list) or not all(isinstance(c, str | int) for c in candidates):
        raise FlowjaxError("candidates must be a list of texts")
    texts = [str(candidate) for candidate in candidates]
    if not 2 <= len(texts) <= len(LETTERS):
        raise FlowjaxError(f"candidates must be 2 to {len(LETTERS)}; it has {len(texts)}")
    for text in texts:
        if texts.count(text) > 1:
            raise FlowjaxError(f"candidates has {text!r} {texts.count(text)} times")
    if values["answer"] not in texts:
        raise FlowjaxError(f"answer {values['answer']!r} must be one of the candidates")
    Question(values["question"], tuple(texts))
    name = PurePosixPath(values["video"])
    if name.is_absolute() or ".." in name.parts:
        raise FlowjaxError(f"video {values['video']!r} must lie in the task's folder")
    seconds = {name: _seconds(entry, name) for name in ("start", "end")}
    return {**values, "candidates": texts, **seconds}


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise FlowjaxError(f"{name} must be a text; it is {value!r}")
    check_text(str(value), name)
    return str(value)


def _seconds(entry: Mapping[str, Any], name: str) -> float:
    value = entry.get(name)
    if value is None:
        return math.nan
    seconds = math.inf
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            seconds = float(value)
    if not math.isfinite(seconds):
        raise FlowjaxError(f"{name} must be a number of seconds; it is {value!r}")
    return seconds


def _sample(task: str, videos: Path, fields: Mapping[str, Any]) -> Sample:
    candidates = tuple(fields["candidates"])
    answer = LETTERS[candidates.index(fields["answer"])]
    start, end = (None if math.isnan(fields[name]) else fields[name] for name in ("start", "end"))
    return Sample(
        f"{task}/{fields['entry']}",
        task,
        videos / fields["video"],
        Question(fields["question"], candidates, answer),
        start,
        end,
    )
