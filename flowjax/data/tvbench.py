"""Benchmarks in the layout that TVBench is published in (Cores et al. 2024, arXiv 2410.07752).

    DIR/json/<task>.json     a list of objects: question, candidates, answer (the text of the true
                             candidate), video; for some tasks start and end, in seconds
    DIR/video/<task>/<video>

The questions are read by a `tensorflow_datasets` builder, which keeps them as ArrayRecord files
without TensorFlow; the videos stay where they are.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from flowjax.data.prompt import LETTERS, Question
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError

TASK = re.compile(r"[\w-]+")
"""What a task may be called: also the name of a split."""


class TVBench(tfds.core.GeneratorBasedBuilder):
    """One split per task; each example is one question, as its file has it.

    `start` and `end` are NaN where a question is about the whole video.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, folder: Path, data_dir: Path) -> None:
        self._folder = folder
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        text, seconds = tfds.features.Text(), tfds.features.Scalar(dtype=np.float64)
        features = {
            "question": text,
            "candidates": tfds.features.Sequence(text),
            "answer": text,
            "video": text,
            "start": seconds,
            "end": seconds,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        return {task: self._generate_examples(task) for task in tasks_of(self._folder)}

    def _generate_examples(self, task: str) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(read_task(self._folder, task))


def read_tvbench(
    folder: Path, tasks: Sequence[str] = (), limit: int | None = None
) -> tuple[Sample, ...]:
    """The questions of a benchmark, task by task, in the order of its files.

    Args:
        folder: has `json/` and `video/`.
        tasks: names of files in `json/`, in the order wanted; all of them where empty.
        limit: the first so many questions of each task.

    Raises:
        FlowjaxError: no such folder or task, or a question that is not well formed; names the
            file, the entry and the field. Videos are not opened.
    """
    there = tasks_of(folder)
    for task in tasks:
        if task not in there:
            raise FlowjaxError(f"task {task!r} does not exist; {folder} has {', '.join(there)}")
    if limit is not None and limit < 1:
        raise FlowjaxError(f"limit {limit}: give at least 1 question per task")
    builder = _prepared(folder, there)
    samples = []
    for task in tasks or there:
        source = builder.as_data_source(task)  # pyright: ignore[reportCallIssue] - decorated
        count = len(source) if limit is None else min(limit, len(source))
        samples += [_sample(folder, task, index, source[index]) for index in range(count)]
    return tuple(samples)


def tasks_of(folder: Path) -> tuple[str, ...]:
    """The names of a benchmark's tasks, sorted.

    Raises:
        FlowjaxError: the folder has no `json/` with tasks in it.
    """
    tasks = tuple(sorted(path.stem for path in (folder / "json").glob("*.json")))
    if not tasks:
        raise FlowjaxError(
            f"{folder} is not a benchmark in TVBench's layout: json/<task>.json is missing"
        )
    for task in tasks:
        if not TASK.fullmatch(task):
            raise FlowjaxError(
                f"{folder / 'json' / task}.json: a task's name has letters, digits, _ and - only"
            )
    return tasks


def read_task(folder: Path, task: str) -> list[dict[str, Any]]:
    """The questions of one task, checked: the features of `TVBench`.

    Raises:
        FlowjaxError: names the file, the entry and the field that is wrong.
    """
    path = folder / "json" / f"{task}.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FlowjaxError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise FlowjaxError(f"{path} must hold a list of questions")
    return [_checked(entry, f"{path}: entry {index}") for index, entry in enumerate(entries)]


def _checked(entry: object, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise FlowjaxError(f"{where} must be an object with question, candidates, answer and video")
    values = {name: _text(entry, name, where) for name in ("question", "answer", "video")}
    candidates = entry.get("candidates")
    if not isinstance(candidates, list) or not all(isinstance(c, str | int) for c in candidates):
        raise FlowjaxError(f"{where}: candidates must be a list of texts")
    texts = [str(candidate) for candidate in candidates]
    if not 2 <= len(texts) <= len(LETTERS):
        raise FlowjaxError(f"{where}: candidates must be 2 to {len(LETTERS)}; it has {len(texts)}")
    if texts.count(values["answer"]) != 1:
        raise FlowjaxError(
            f"{where}: answer {values['answer']!r} must be exactly one of the candidates"
        )
    name = PurePosixPath(values["video"])
    if name.is_absolute() or ".." in name.parts:
        raise FlowjaxError(f"{where}: video {values['video']!r} must lie in the task's folder")
    seconds = {name: _seconds(entry, name, where) for name in ("start", "end")}
    return {**values, "candidates": texts, **seconds}


def _text(entry: Mapping[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise FlowjaxError(f"{where}: {name} must be a text; it is {value!r}")
    return str(value)


def _seconds(entry: Mapping[str, Any], name: str, where: str) -> float:
    value = entry.get(name)
    if value is None:
        return math.nan
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise FlowjaxError(f"{where}: {name} must be a number of seconds; it is {value!r}")
    return float(value)


def _prepared(folder: Path, tasks: Sequence[str]) -> TVBench:
    """The builder with its files written, under the cache, by the digest of the questions."""
    total = hashlib.sha256()
    for task in tasks:
        read_task(folder, task)
        total.update(task.encode())
        total.update((folder / "json" / f"{task}.json").read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    builder = TVBench(folder=folder, data_dir=home / "flowjax" / "tvbench" / total.hexdigest()[:16])
    tfds.disable_progress_bar()
    # What it says of its progress would stand among our results.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return builder


def _sample(folder: Path, task: str, index: int, example: Mapping[str, Any]) -> Sample:
    candidates = tuple(candidate.decode() for candidate in example["candidates"])
    answer = LETTERS[candidates.index(example["answer"].decode())]
    start, end = (
        None if math.isnan(example[name]) else float(example[name]) for name in ("start", "end")
    )
    return Sample(
        f"{task}/{index}",
        task,
        folder / "video" / task / example["video"].decode(),
        Question(example["question"].decode(), candidates, answer),
        start,
        end,
    )
