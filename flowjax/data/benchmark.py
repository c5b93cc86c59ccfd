"""Benchmarks: which there are, and reading the one that a folder holds."""

import functools
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import flowjax.data.benchmarks
from flowjax.data.entry import Entry
from flowjax.data.prepare import is_prepared, read_prepared_benchmark
from flowjax.data.prepared import MANIFEST
from flowjax.data.question_cache import kept
from flowjax.data.samples import Part, Row, Samples
from flowjax.errors import FlowjaxError
from flowjax.files import printable
from flowjax.paths import is_remote
from flowjax.submodules import submodules

Rows = Iterator[tuple[str, Callable[[], Entry]]]
"""Of every entry of a file, in order: where it is, in words, and what makes an `Entry` of it."""


@dataclass(frozen=True)
class Benchmark:
    """How one benchmark lies on disk.

    name: in a word; also that of its file here.
    needs: what its folder must have, in words, for whoever has another.
    accepts: whether a folder (or for some a file) looks like it. Opens no file.
    files: its files of questions by name, in order; empty where there are none.
    rows: the entries of such a file, given its folder, its name and its path.
    beside: further files of the folder that the entries depend on.
    """

    name: str
    needs: str
    accepts: Callable[[Path], bool]
    files: Callable[[Path], Mapping[str, Path]]
    rows: Callable[[Path, str, Path], Rows]
    beside: Callable[[Path], Sequence[Path]] = lambda _: ()

    def root(self, path: Path) -> Path:
        """The folder that holds the videos."""
        return path if path.is_dir() else path.parent


@functools.cache
def benchmarks() -> dict[str, Benchmark]:
    """Every benchmark by name."""
    found = submodules(flowjax.data.benchmarks).values()
    return {module.BENCHMARK.name: module.BENCHMARK for module in found}


def benchmark_of(path: Path) -> Benchmark:
    """The benchmark that a folder holds.

    Raises:
        FlowjaxError: it is none, or it could be several; says what each would need.
    """
    if not path.exists():
        raise FlowjaxError(f"{path} is missing; --data is a benchmark's folder")
    found = [benchmark for benchmark in benchmarks().values() if benchmark.accepts(path)]
    if len(found) == 1:
        return found[0]
    needs = "; ".join(f"{one.name}: {one.needs}" for one in (found or benchmarks().values()))
    if found:
        raise FlowjaxError(f"{path} could be several benchmarks; leave one's files there: {needs}")
    raise FlowjaxError(f"{path} is not a benchmark's folder. What each would need: {needs}")


def read_benchmark(path: Path, tasks: Sequence[str] = (), limit: int | None = None) -> Samples:
    """The questions of a benchmark, task by task, in the order of its files.

    Args:
        path: its folder, what `flowjax prepare` made of it, or a table of questions.
        tasks: in the order wanted; all of them where empty. Where every task has a file of its
            own, no other files are read.
        limit: the first so many questions of each task.

    Returns:
        One sample per entry, made when it is asked for. One that is not well formed has a
        `problem`, which names the file, the entry and the field; so has the only sample of a file
        that cannot be read. Videos are not opened.

    Raises:
        FlowjaxError: no such folder or task.
    """
    if limit is not None and limit < 1:
        raise FlowjaxError(f"limit {limit}: give at least 1 question per task")
    if is_prepared(path):
        return _chosen(path, read_prepared_benchmark(path), tasks, limit, ())
    if is_remote(path):
        raise FlowjaxError(
            f"{path} has no {MANIFEST}: videos are decoded from files; send their frames there "
            f"(flowjax prepare DATA {path}), or mount the bucket (gcsfuse)"
        )
    benchmark = benchmark_of(path)
    files = benchmark.files(path)
    own = set(tasks) <= files.keys()
    wanted = [task for task in tasks if task in files] if tasks and own else files
    parts = [_part(benchmark, path, name, files[name]) for name in wanted]
    others = files if own or len(files) > 1 else ()
    return _chosen(path, Samples.of(parts), tasks, limit, others)


def _chosen(
    path: Path, samples: Samples, tasks: Sequence[str], limit: int | None, others: Collection[str]
) -> Samples:
    """Those of some tasks; `others` are tasks there may be whose files were not read."""
    there = dict.fromkeys(samples.tasks)
    for task in tasks:
        if task not in there:
            known = ", ".join(sorted({*there, *others}))
            raise FlowjaxError(f"task {task!r} does not exist; {path} has {known}")
    return samples.chosen(tasks, limit)


def _part(benchmark: Benchmark, path: Path, name: str, file: Path) -> Part:
    """The questions of one file, by way of the cache."""
    root = benchmark.root(path)

    def rows() -> Iterator[Row]:
        for index, (where, make) in enumerate(benchmark.rows(path, name, file)):
            try:
                yield Row(f"{name}/{index}", make())
            except FlowjaxError as error:
                yield Row(f"{name}/{index}", None, f"{where}: {error}")

    try:
        digest = _digest(benchmark.name, name, (file, *benchmark.beside(path)))
        found = kept(digest, rows)
        if not len(found.ids):
            raise FlowjaxError(f"{file} must hold a list of questions")
    except FlowjaxError as error:
        return Part.unreadable(name, file, str(error))
    return Part(root, file, name, found)


def _digest(benchmark: str, name: str, files: Sequence[Path]) -> str:
    total = hashlib.sha256(repr((benchmark, printable(name))).encode())
    for file in files:
        try:
            with file.open("rb") as handle:
                total.update(hashlib.file_digest(handle, "sha256").digest())
        except FileNotFoundError:
            raise FlowjaxError(f"{file} is missing") from None
        except OSError as error:
            raise FlowjaxError(f"{file} cannot be read: {error.strerror}") from error
    return total.hexdigest()
