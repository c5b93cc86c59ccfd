"""Questions as `tensorflow_datasets` keeps them: ArrayRecord files, without TensorFlow.

The folders are named by the digest of what they were made of. They are written under another name
and renamed, so any number of processes may read and write at once; files that are damaged are
written anew, and where nothing can be kept the questions are taken as they come.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from flowjax.cache import cache_folder
from flowjax.data.entry import Entry
from flowjax.data.samples import Kept, Row
from flowjax.files import send
from flowjax.paths import is_remote

SPLIT = "train"
TOGETHER = 5_000
"""Names of questions in one record of the index."""

TEXTS = ("task", "question", "answer", "video", "reference", "subtitles")
NUMBERS = ("start", "end", "rate")


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """No bucket has these questions; the library would leave an empty folder behind."""


class _Builder(tfds.core.GeneratorBasedBuilder):
    """Examples that are given, in their order; `FEATURES` are made by a subclass."""

    VERSION = tfds.core.Version("3.0.0")

    def __init__(self, *, data_dir: Path, rows: Iterable[Row] = ()) -> None:
        self._rows = rows
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _features(self) -> dict[str, Any]:
        raise NotImplementedError

    def _examples(self) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            features=tfds.features.FeaturesDict(self._features()),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(self._examples())


class Questions(_Builder):
    """The questions of one file; each example is one of its entries.

    Numbers are "nan" where there are none; they are texts, for the library keeps numbers as
    float32. An example with a `problem` is an entry that is not well formed.
    """

    def _features(self) -> dict[str, Any]:
        text = tfds.features.Text()
        names = ("sample_id", "problem", *TEXTS, *NUMBERS)
        return {**dict.fromkeys(names, text), "options": tfds.features.Sequence(text)}

    def _examples(self) -> Iterator[dict[str, Any]]:
        for row in self._rows:
            entry = row.entry
            texts = {name: getattr(entry, name) if entry else "" for name in TEXTS}
            numbers = {name: repr(getattr(entry, name)) if entry else "nan" for name in NUMBERS}
            own = {"sample_id": row.sample_id, "problem": row.problem}
            yield {**own, **texts, **numbers, "options": list(entry.options) if entry else []}


class QuestionIndex(_Builder):
    """What the questions of one file are called, many to an example."""

    def _features(self) -> dict[str, Any]:
        texts = tfds.features.Sequence(tfds.features.Text())
        return {"ids": texts, "tasks": texts}

    def _examples(self) -> Iterator[dict[str, Any]]:
        rows = list(self._rows)
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            tasks = [row.entry.task if row.entry else "" for row in some]
            yield {"ids": [row.sample_id for row in some], "tasks": tasks}


def kept(digest: str, rows: Callable[[], Iterable[Row]]) -> Kept:
    """The questions with this digest, from the cache or by way of it.

    Args:
        digest: of the files that they are made of.
        rows: makes them, where they are not there.

    Raises:
        FlowjaxError: an error of `rows`.
    """
    home = cache_folder("questions")
    if home is None:
        return Kept.of(list(rows()))
    folder = home / digest[:24]
    found = open_questions(folder)
    if found is None:
        made = list(rows())
        if write_questions(folder, made):
            found = open_questions(folder)
        if found is None:
            return Kept.of(made)
    return _mending(found, folder, rows)


def _mending(found: Kept, folder: Path, rows: Callable[[], Iterable[Row]]) -> Kept:
    """Questions whose files are written anew where one turns out to be damaged."""
    mended: list[Kept] = []

    def read(index: int) -> Row:
        if not mended:
            try:
                return found.read(index)
            except Exception:  # whatever the library and its C++ code raise
                made = list(rows())
                write_questions(folder, made)
                mended.append(Kept.of(made))
        return mended[0].read(index)

    return Kept(found.ids, found.tasks, read)


def open_questions(folder: Path) -> Kept | None:
    """What `write_questions` wrote; None where there are no files, or damaged ones."""
    try:
        if not folder.is_dir():
            return None
        index = QuestionIndex(data_dir=folder).as_data_source(SPLIT)  # pyright: ignore[reportCallIssue] - decorated
        names = [index[number] for number in range(len(index))]
        ids = [name.decode() for some in names for name in some["ids"]]
        tasks = [name.decode() for some in names for name in some["tasks"]]
        source = Questions(data_dir=folder).as_data_source(SPLIT)  # pyright: ignore[reportCallIssue] - decorated
        if not len(source) == len(ids) == len(tasks):
            return None
        for number in {0, len(ids) - 1} if ids else ():
            if _row(source[number]).sample_id != ids[number]:
                return None
    except Exception:  # whatever the library and its C++ code raise
        return None
    return Kept(ids, tasks, lambda number: _row(source[number]))


def write_questions(folder: Path, rows: Sequence[Row]) -> bool:
    """Put files in the place of what is there; whether that could be done."""
    if is_remote(folder):
        return _send_questions(folder, rows)
    private = None
    try:
        private = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        tfds.disable_progress_bar()
        # What it says of its progress would stand among our results.
        with contextlib.redirect_stdout(io.StringIO()):
            for builder in (Questions, QuestionIndex):
                builder(data_dir=private / "new", rows=rows).download_and_prepare()
        if folder.exists() and not _is_sound(folder, len(rows)):
            os.rename(folder, private / "damaged")
        if not folder.exists():
            os.rename(private / "new", folder)
    except Exception:  # whatever the library raises; another process may have been quicker
        return folder.exists()
    finally:
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)
    return True


def _send_questions(folder: Path, rows: Sequence[Row]) -> bool:
    """Files in an object store, made on this machine; those of a part of them are damaged ones."""
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "made"
        if not write_questions(made, rows):
            return False
        try:
            for file in made.rglob("*"):
                if file.is_file():
                    send(file.read_bytes(), folder / file.relative_to(made).as_posix())
        except OSError:
            return False
    return True


def _is_sound(folder: Path, count: int) -> bool:
    """Whether every question can be read."""
    found = open_questions(folder)
    try:
        return found is not None and len([found[i] for i in range(len(found.ids))]) == count
    except Exception:  # whatever the library and its C++ code raise
        return False


def _row(example: Mapping[str, Any]) -> Row:
    sample_id, problem = (example[name].decode() for name in ("sample_id", "problem"))
    texts: dict[str, Any] = {name: example[name].decode() for name in TEXTS}
    if not texts["question"]:
        return Row(sample_id, None, problem)
    numbers: dict[str, Any] = {name: float(example[name]) for name in NUMBERS}
    options = tuple(option.decode() for option in example["options"])
    return Row(sample_id, Entry(**texts, **numbers, options=options), problem)
