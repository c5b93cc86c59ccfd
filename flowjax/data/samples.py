"""The samples of a benchmark, each made when it is asked for, so that many take little room."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Int64

from flowjax.data.entry import Entry
from flowjax.data.prompt import Question
from flowjax.data.sample import UNREADABLE, Sample
from flowjax.data.video import Choose

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""Of videos that a benchmark names without one."""


class Row(NamedTuple):
    """An entry, or why there is none.

    problem: of the entry; with `whole`, of all of its file.
    """

    sample_id: str
    entry: Entry | None
    problem: str = ""
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Kept:
    """Questions: what they are called, and a reader of each.

    tasks: empty of entries that are not well formed.
    """

    ids: Sequence[str]
    tasks: Sequence[str]
    read: Callable[[int], Row]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Kept":
        """Rows that are in memory."""
        tasks = [row.entry.task if row.entry else "" for row in rows]
        return cls([row.sample_id for row in rows], tasks, rows.__getitem__)

    def __getitem__(self, index: int) -> Row:
        """One question."""
        return self.read(index)


@dataclass(frozen=True, eq=False)
class Part:
    """The questions of one file.

    root: the folder that videos lie in.
    file: for errors.
    name: of the file; the task of entries that are not well formed.
    """

    root: Path
    file: Path
    name: str
    rows: Kept

    @classmethod
    def unreadable(cls, name: str, file: Path, problem: str) -> "Part":
        """One sample that says why a file cannot be read."""
        return cls(file.parent, file, name, Kept.of([Row(name, None, problem, whole=True)]))

    def check(self, frames: int | Choose) -> None:
        """Refuse frames that cannot be read of these videos; of files, any can be.

        Raises:
            FlowjaxError: other ones were prepared.
        """

    @property
    def tasks(self) -> list[str]:
        """Of every question."""
        return [task or self.name for task in self.rows.tasks]

    def sample(self, index: int) -> Sample:
        """One question."""
        row = self.rows[index]
        if row.entry is None:
            problem = row.problem if row.whole else f"{self.file}: {row.problem}"
            return Sample(row.sample_id, self.name, self.file, UNREADABLE, problem=problem)
        entry = row.entry
        return Sample(
            row.sample_id,
            entry.task,
            found(self.root / entry.video),
            Question(entry.question, entry.options, entry.answer or None),
            given(entry.start),
            given(entry.end),
            rate=given(entry.rate),
            reference=entry.reference,
            subtitles=self.root / entry.subtitles if entry.subtitles else None,
        )


def found(path: Path) -> Path:
    """The video at this path, or at this path with an ending, where that is the one there is."""
    if path.suffix.lower() in SUFFIXES or path.exists():
        return path
    there = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    return next((one for one in there if one.exists()), path)


def given(seconds: float) -> float | None:
    """A number of seconds; None where it is NaN."""
    return None if math.isnan(seconds) else seconds


class Samples(Sequence[Sample]):
    """Samples in order; `ids` and `tasks` are known of all, the rest is read one by one."""

    def __init__(self, parts: Sequence[Part], ids: list[str], tasks: list[str]) -> None:
        """See `of`."""
        self._parts = parts
        self.ids, self.tasks = ids, tasks
        starts = np.cumsum([0, *(len(part.rows.ids) for part in parts)])
        self._starts = starts.astype(np.int64)
        self._chosen: Int64[np.ndarray, " n"] = np.arange(len(ids), dtype=np.int64)

    @classmethod
    def of(cls, parts: Sequence[Part]) -> "Samples":
        """All questions of all files."""
        ids = [name for part in parts for name in part.rows.ids]
        return cls(parts, ids, [task for part in parts for task in part.tasks])

    def only(self, indices: Sequence[int] | Int64[np.ndarray, " k"] | range) -> "Samples":
        """Some of them, in this order."""
        other = Samples.__new__(Samples)
        other._parts, other._starts = self._parts, self._starts
        other._chosen = self._chosen[np.asarray(indices, np.int64)]
        other.ids = [self.ids[index] for index in indices]
        other.tasks = [self.tasks[index] for index in indices]
        return other

    def chosen(self, tasks: Sequence[str] = (), limit: int | None = None) -> "Samples":
        """Those of some tasks, task by task in this order; the first so many of each."""
        of_task: dict[str, list[int]] = {}
        for index, task in enumerate(self.tasks):
            of_task.setdefault(task, []).append(index)
        return self.only([index for task in tasks or of_task for index in of_task[task][:limit]])

    def check(self, frames: int | Choose) -> None:
        """Refuse frames that cannot be read of these samples; see `Part.check`."""
        for part in self._parts:
            part.check(frames)

    def shard(self, process: int, processes: int) -> "Samples":
        """Those that one of several processes reads; see `shard`."""
        return self.only(shard(len(self), process, processes))

    def __len__(self) -> int:
        """How many."""
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Samples": ...
    def __getitem__(self, index: int | slice) -> "Sample | Samples":
        """One of them, or several."""
        if isinstance(index, slice):
            return self.only(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        place = int(self._chosen[index])
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._parts[part].sample(place - int(self._starts[part]))


def shard(count: int, process: int, processes: int) -> range:
    """Which of `count` samples one of several processes reads: every one is read by exactly one.

    Shards differ in size by one at most, and depend on nothing else than these numbers.

    Raises:
        ValueError: `process` is not one of them.
    """
    if not 0 <= process < processes:
        raise ValueError(f"process {process} of {processes}")
    return range(process, count, processes)
