"""Preparing a benchmark: every clip decoded once, in parallel; and reading what was prepared."""

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

from flowjax.data.entry import Entry
from flowjax.data.frame_rate import AtRate
from flowjax.data.prepare_shard import Written, write_shard
from flowjax.data.prepared import (
    FAILURES,
    FORMAT,
    FRAMES,
    MANIFEST,
    PER_SHARD,
    QUESTIONS,
    check_frames,
    failures_path,
    shard_path,
    shards_there,
)
from flowjax.data.prompt import Question
from flowjax.data.question_cache import open_questions, write_questions
from flowjax.data.sample import UNREADABLE, Prepared, Sample
from flowjax.data.samples import Kept, Part, Row, Samples, given
from flowjax.data.video import Choose
from flowjax.downloads import copied
from flowjax.errors import FlowjaxError
from flowjax.files import atomically, lock, printable, read_json, writing
from flowjax.paths import is_remote
from flowjax.workers import end_with_parent

NONE = -1
"""The clip of a question that cannot be asked."""


@dataclass(frozen=True)
class Plan:
    """What there is to prepare.

    rows: the questions.
    clip_of: the clip of every question.
    clips: a sample for every clip.
    """

    rows: tuple[Row, ...]
    clip_of: tuple[int, ...]
    clips: tuple[Sample, ...]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Plan":
        """Each part of a video that questions are about, once."""
        rows, clip_of, clips = [], [], dict[tuple[Any, ...], int]()
        asked = list[Sample]()
        for sample in samples:
            rows.append(Row(sample.sample_id, _entry(sample), sample.problem))
            if sample.problem:
                clip_of.append(NONE)
                continue
            key = (sample.video, sample.start, sample.end, sample.by, sample.rate)
            if key not in clips:
                clips[key] = len(clips)
                asked.append(replace(sample, question=UNREADABLE, sample_id="", task=""))
            clip_of.append(clips[key])
        return cls(tuple(rows), tuple(clip_of), tuple(asked))

    @property
    def shards(self) -> list[tuple[Sample, ...]]:
        """The clips of every shard."""
        starts = range(0, len(self.clips), PER_SHARD)
        return [self.clips[start : start + PER_SHARD] for start in starts]

    @property
    def digest(self) -> str:
        """SHA-256 of all questions and clips."""
        return hashlib.sha256(repr((self.rows, self.clip_of)).encode()).hexdigest()


def _entry(sample: Sample) -> Entry:
    question = sample.question
    return Entry(
        sample.task,
        question.stem,
        question.options,
        question.answer or "",
        printable(sample.video),
        nan if sample.start is None else float(sample.start),
        nan if sample.end is None else float(sample.end),
        nan if sample.rate is None else float(sample.rate),
        sample.reference,
        "" if sample.subtitles is None else printable(sample.subtitles),
    )


def prepare(
    plan: Plan,
    source: Path,
    out: Path,
    *,
    frames: int | AtRate,
    size: int | None = None,
    workers: int = 1,
    advance: Callable[[int], object] = lambda _: None,
) -> dict[int, str]:
    """Decode every clip and store its frames; goes on where it was stopped.

    Args:
        plan: the samples of a benchmark.
        source: the benchmark, as it was given.
        out: the folder to make, or to finish.
        frames: of every clip, or what chooses them.
        size: see `write_shard`.
        workers: processes that decode.
        advance: called with the number of clips that have been done.

    Returns:
        Why clips could not be read, by their number in `Plan.clips`; they are tried again when the
        same is prepared once more.

    Raises:
        FlowjaxError: the folder holds something else, is being written, or cannot be written.
    """
    settings = {
        "format": FORMAT,
        "frames": frames if isinstance(frames, int) else frames.settings,
        "size": size,
        "source": printable(source),
        "questions": plan.digest,
    }
    _check(out, settings)
    if is_remote(out):  # there are neither folders nor locks
        return _prepare(plan, settings, out, frames, workers, advance)
    with writing(out):
        for folder in (FRAMES, FAILURES):
            (out / folder).mkdir(parents=True, exist_ok=True)
        held = lock(out / ".lock")
    if held is None:
        raise FlowjaxError(f"{out}: another process is preparing it; wait for it to end")
    try:
        return _prepare(plan, settings, out, frames, workers, advance)
    finally:
        os.close(held)


def _prepare(
    plan: Plan,
    settings: dict[str, Any],
    out: Path,
    frames: int | AtRate,
    workers: int,
    advance: Callable[[int], object],
) -> dict[int, str]:
    """What `prepare` does in a folder that is its own."""
    with writing(out):
        for folder in () if is_remote(out) else (out, out / FRAMES, out / FAILURES):
            for leftover in folder.glob(".*.????????"):  # of killed processes
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        whole = settings | {"clip_of": plan.clip_of, "clips": len(plan.clips)}
        _write_json(out / MANIFEST, whole)
        if _questions(out) is None and not write_questions(out / QUESTIONS, plan.rows):
            raise FlowjaxError(f"{out / QUESTIONS} cannot be written")
    shards = plan.shards
    there = shards_there(out)
    failed = _failures(out, len(shards), there)
    again = {clip // PER_SHARD for clip in failed}
    todo = [
        number
        for number in range(len(shards))
        if number in again or shard_path(out, number).name not in there
    ]
    advance(len(plan.clips) - sum(len(shards[number]) for number in todo))
    for done in _written(out, plan, todo, frames, settings["size"], workers):
        first = done.shard * PER_SHARD
        mine = range(first, first + PER_SHARD)
        failed = {clip: why for clip, why in failed.items() if clip not in mine} | done.failed
        advance(len(shards[done.shard]))
    return failed


def _written(
    out: Path,
    plan: Plan,
    todo: Sequence[int],
    frames: int | AtRate,
    size: int | None,
    workers: int,
) -> Iterator[Written]:
    shards = plan.shards
    if workers == 1:
        for number in todo:
            yield write_shard(out, number, shards[number], frames, size)
        return
    context = multiprocessing.get_context("spawn")
    count = min(workers, max(1, len(todo)))
    with ProcessPoolExecutor(count, mp_context=context, initializer=end_with_parent) as pool:
        pending = [
            pool.submit(write_shard, out, number, shards[number], frames, size) for number in todo
        ]
        try:
            for done in as_completed(pending):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that is not ours, or was prepared otherwise."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_prepared(out):
        started = out.is_dir() and {path.name for path in out.iterdir()} <= {
            ".lock",
            FRAMES,
            FAILURES,
            QUESTIONS,
        }
        if started:
            return
        raise FlowjaxError(f"{out} already exists and was not made by flowjax prepare")
    there = read_json(out / MANIFEST)
    names = [name for name in settings if there.get(name) != settings[name]]
    if names:
        differences = "; ".join(
            f"{name} is {json.dumps(there.get(name))} there and {json.dumps(settings[name])} here"
            for name in names
        )
        raise FlowjaxError(f"{out} was prepared otherwise ({differences}); choose another OUT")


def _failures(out: Path, shards: int, there: Collection[str]) -> dict[int, str]:
    """Why clips of the shards that are there could not be read, by their number."""
    failed = {}
    for shard in range(shards):
        note = failures_path(out, shard)
        if shard_path(out, shard).name in there and note.exists():
            failed |= {int(clip): str(why) for clip, why in read_json(note).items()}
    return failed


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with writing(path):
        text = json.dumps(value) + "\n"
        atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def is_prepared(path: Path) -> bool:
    """Whether a folder was made by `prepare`."""
    return (path / MANIFEST).is_file()


def read_prepared_benchmark(path: Path) -> Samples:
    """All samples of a folder that `prepare` made, with the ids and paths of the benchmark's own.

    Raises:
        FlowjaxError: it is not finished, damaged, or of another version.
    """
    fields = read_json(path / MANIFEST)
    if fields.get("format") != FORMAT:
        raise FlowjaxError(
            f"{path / MANIFEST}: format is {fields.get('format')!r}; this version of flowjax reads "
            f"{FORMAT}; prepare again"
        )
    clips, clip_of = fields.get("clips"), fields.get("clip_of")
    frames = _frames(fields.get("frames"))
    kept = _questions(path)
    if (
        kept is None
        or not isinstance(clip_of, list)
        or len(clip_of) != len(kept.ids)
        or type(clips) is not int
        or frames is None
    ):
        raise FlowjaxError(f"{path} is damaged; prepare again")
    there = shards_there(path)
    for shard in range(-(-clips // PER_SHARD)):
        if (name := shard_path(path, shard).name) not in there:
            raise FlowjaxError(
                f"{path} is not finished ({name} is missing); the same `flowjax prepare` goes on"
            )
    return Samples.of([PreparedPart(path, path, path.name, kept, tuple(clip_of), frames)])


def _questions(path: Path) -> Kept | None:
    folder = path / QUESTIONS
    return open_questions(copied(folder)) if folder.exists() else None


def _frames(value: object) -> int | AtRate | None:
    """As a manifest has it; None where it is damaged."""
    if type(value) is int:
        return value
    try:
        return AtRate.of(value) if isinstance(value, dict) else None
    except (TypeError, KeyError):
        return None


@dataclass(frozen=True, eq=False)
class PreparedPart(Part):
    """Questions whose frames are stored."""

    clip_of: tuple[int, ...]
    frames: int | AtRate

    def check(self, frames: int | Choose) -> None:
        """Refuse other frames than are there."""
        check_frames(self.root, self.frames, frames)

    def sample(self, index: int) -> Sample:
        """One question; its video's path is the one that the benchmark had."""
        row = self.rows[index]
        entry = row.entry
        if entry is None:
            raise FlowjaxError(f"{self.root} is damaged; prepare again")
        if row.problem:
            video = Path(entry.video)
            return Sample(row.sample_id, entry.task, video, UNREADABLE, problem=row.problem)
        clip = self.clip_of[index]
        where = Prepared(shard_path(self.root, clip // PER_SHARD), clip % PER_SHARD, self.frames)
        return Sample(
            row.sample_id,
            entry.task,
            Path(entry.video),
            Question(entry.question, entry.options, entry.answer or None),
            given(entry.start),
            given(entry.end),
            rate=given(entry.rate),
            reference=entry.reference,
            subtitles=Path(entry.subtitles) if entry.subtitles else None,
            prepared=where,
        )
