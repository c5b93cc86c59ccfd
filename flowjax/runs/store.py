"""Results that survive: one atomic Parquet part per sample, and a manifest of the settings.

    RUN/manifest.json       what was asked: model, samples, edges, windows, code version, digest
    RUN/parts/000000.parquet    rows of sample 0, complete or absent; says what they were made of
    RUN/answers/000002.parquet  how sample 2 is answered, until its rows are there
    RUN/failed/000001.parquet   why sample 1 could not be read
    RUN/results.parquet     all rows in sample order, once every sample is done
    RUN/accuracy.parquet    how every sample is answered, once that is known of all
    RUN/failures.parquet    the samples that could not be read, if there are any
    RUN/.lock               locked by the process that writes the run

Killed at any moment, the same command goes on after the last finished sample, and tries those that
failed again. Two commands never write one run: the later one is refused when it comes to write.
In an object store (`gs://`) every file is one upload, whole or absent, and there is no lock: whose
run it is says the manifest, which is looked at before every write.
"""

import contextlib
import functools
import hashlib
import json
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.files import atomically, check_writable, lock, printable, writing
from flowjax.paths import is_remote, remove_tree
from flowjax.runs.answered import ANSWERED, Answered, accuracy_of, answer_of
from flowjax.runs.tables import read_metadata, read_table, write_table

FORMAT = 3
MANIFEST, LOCK = "manifest.json", ".lock"
PARTS, FAILED, ANSWERS = "parts", "failed", "answers"
MADE_OF = b"flowjax.made_of"
"""In the metadata of a part: the digest of the question and the video that its rows are of."""

Overwrite = bool | Literal["other"]

FAILURES = pa.schema([(name, pa.string()) for name in ("sample_id", "task", "video", "error")])
"""Columns of `failures.parquet`."""


class MemoryStore:
    """The rows of a run that is printed alone; nothing is written."""

    def __init__(self, settings: Mapping[str, Any], *, schema: pa.Schema) -> None:
        """See `RunStore`."""
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.finished: Mapping[int, str] = {}
        self.answered: dict[int, Answered] = {}
        self._schema = schema
        self._rows: dict[int, pa.Table] = {}
        self._failed: dict[int, pa.Table] = {}

    def write(self, index: int, rows: pa.Table, made_of: str) -> None:
        """Keep the rows of one sample."""
        self._rows[index] = rows
        self.answered[index] = answer_of(rows, made_of)

    def answer(self, index: int, empty: pa.Table, made_of: str) -> None:
        """Keep how one sample is answered, whose rows come later."""
        self.answered[index] = answer_of(empty, made_of)

    def accuracy(self, *, anew: bool = False) -> pa.Table | None:
        """How every sample is answered; None where it is not known of all that could be read."""
        del anew
        return accuracy_of(self.answered)

    def fail(self, index: int, sample: Sample, error: str) -> None:
        """Keep why a sample cannot be read."""
        self._failed[index] = _failure(sample, error)

    def finish(self) -> tuple[pa.Table, pa.Table]:
        """The rows in sample order, and the failures."""
        return _joined(self._schema, self._rows), _joined(FAILURES, self._failed)

    def close(self) -> None:
        """Nothing is held."""


class RunStore:
    """The folder of one run; made when the first sample is written, and locked from then on."""

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        samples: int,
        *,
        schema: pa.Schema,
        overwrite: Overwrite = False,
        leads: bool = True,
    ) -> None:
        """Open a run for going on with, or a new one.

        Args:
            path: the run's folder, or a link to it. An empty folder is taken as it is.
            settings: everything that decides the results but the questions and the videos, as JSON
                values.
            samples: how many samples the run has.
            schema: of the rows.
            overwrite: replace another run in this folder; "other": only if its settings differ.
            leads: False for a process that writes samples of a run which another has claimed.

        Raises:
            FlowjaxError: the folder holds something else, a run with other settings (named in the
                message), or cannot be written; or another process is writing it.
        """
        self.path = path
        self._remote = is_remote(path)
        self._folder = path if self._remote else Path(os.path.realpath(path))
        self._samples = samples
        self._schema = schema
        self._manifest = {
            "format": FORMAT,
            "digest": digest(settings),
            "samples": samples,
            "settings": json.loads(json.dumps(settings)),
        }
        found = self._found()
        differs = found is not None and found["digest"] != self._manifest["digest"]
        self._leads = leads
        self._replace = leads and (differs if overwrite == "other" else bool(overwrite))
        self._release: Callable[[], object] | None = None
        self._locked: os.stat_result | None = None
        self._claimed = False
        with writing(path):
            exists = self._folder.exists()
        if not exists:
            check_writable(self._folder)
        self._check()
        if leads and self._found() is not None:
            # Nothing need be written of a run that is finished, so its folder may be read-only.
            with contextlib.suppress(OSError):
                self._lock()

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the results, as JSON has it."""
        return self._manifest["settings"]

    @functools.cached_property
    def finished(self) -> Mapping[int, str]:
        """The samples whose rows are stored, with the digest of what these are made of."""
        return {index: made_of for index, (made_of, _) in self._said(PARTS).items()}

    @functools.cached_property
    def answered(self) -> dict[int, Answered]:
        """The samples of which it is stored how they are answered, those with rows included."""
        return self._said(PARTS) | self._said(ANSWERS) if self._leads else {}

    def write(self, index: int, rows: pa.Table, made_of: str) -> None:
        """Store the rows of one sample: all of them or none.

        Args:
            index: of the sample.
            rows: with the store's schema.
            made_of: digest of the question and the video.

        Raises:
            FlowjaxError: the disk is full or not writable, and what was finished stays; or another
                process is writing this run.
        """
        self.claim()
        metadata = {**(rows.schema.metadata or {}), MADE_OF: made_of.encode()}
        with writing(self.path):
            self._write_table(self._file(PARTS, index), rows.replace_schema_metadata(metadata))
            for folder in (FAILED, ANSWERS):
                self._file(folder, index).unlink(missing_ok=True)
        self.answered[index] = answer_of(rows, made_of)

    def answer(self, index: int, empty: pa.Table, made_of: str) -> None:
        """Store how one sample is answered, whose rows come later.

        empty: without rows; its metadata says it.

        Raises:
            FlowjaxError: see `write`.
        """
        self.claim()
        metadata = {**(empty.schema.metadata or {}), MADE_OF: made_of.encode()}
        with writing(self.path):
            self._write_table(self._file(ANSWERS, index), empty.replace_schema_metadata(metadata))
        self.answered[index] = answer_of(empty, made_of)

    def accuracy(self, *, anew: bool = False) -> pa.Table | None:
        """Write and return `accuracy.parquet`, before there are rows of every sample.

        None, and nothing is written, where it is not known how every sample is answered.

        anew: look at the folder again, where other processes have written answers, too.

        Raises:
            FlowjaxError: see `write`.
        """
        if anew:
            self.__dict__.pop("answered", None)
        table = accuracy_of(self.answered)
        if table is not None:
            self._keep(self._folder / "accuracy.parquet", table)
        return table

    def fail(self, index: int, sample: Sample, error: str) -> None:
        """Store that a sample cannot be read, and why.

        Raises:
            FlowjaxError: see `write`.
        """
        self.claim()
        with writing(self.path):
            for folder in (PARTS, ANSWERS):  # damaged, or of what it was before
                self._file(folder, index).unlink(missing_ok=True)
            self._write_table(self._file(FAILED, index), _failure(sample, error))
        self.answered.pop(index, None)

    def finish(self) -> tuple[pa.Table, pa.Table]:
        """Join the parts into `results.parquet`; return the rows, and the failures.

        Raises:
            FlowjaxError: a sample is missing, a part cannot be read, or see `write`.
        """
        parts = self._stored(PARTS)
        failed = self._stored(FAILED) - parts
        missing = set(range(self._samples)) - parts - failed
        if missing:
            raise FlowjaxError(f"{self.path}: sample {min(missing)} has no results")
        tables = self._tables(PARTS, parts)
        table = _joined(self._schema, tables)
        failures = _joined(FAILURES, self._tables(FAILED, failed))
        said = {index: answer_of(tables[index], "") for index in sorted(tables)}
        self._keep(self._folder / "accuracy.parquet", accuracy_of(said))
        self._keep(self._folder / "failures.parquet", failures if failures.num_rows else None)
        self._keep(self._folder / "results.parquet", table)
        if (self._folder / ANSWERS).exists():  # all of them are in parts
            self.claim()
            with writing(self.path):
                remove_tree(self._folder / ANSWERS)
        return table, failures

    def close(self) -> None:
        """Let another process write the run."""
        if self._release is not None:
            self._release()
            self._release, self._claimed = None, False

    def _file(self, folder: str, index: int) -> Path:
        return self._folder / folder / f"{index:06d}.parquet"

    def _stored(self, folder: str) -> frozenset[int]:
        if self._replace:
            return frozenset()
        names = (self._folder / folder).glob("[0-9]*.parquet")
        indices = (int(part.stem) for part in names if part.stem.isdecimal())
        return frozenset(index for index in indices if index < self._samples)

    def _said(self, folder: str) -> dict[int, Answered]:
        """What the files of a folder say of themselves, without those that are damaged."""
        found = {}
        for index in sorted(self._stored(folder)):
            metadata = read_metadata(self._file(folder, index))
            if metadata is not None:
                made_of, answer = (metadata.get(n, b"").decode() for n in (MADE_OF, ANSWERED))
                found[index] = made_of, answer
        return found

    def _tables(self, folder: str, indices: frozenset[int]) -> dict[int, pa.Table]:
        return {index: read_table(self._file(folder, index)) for index in indices}

    def _keep(self, path: Path, table: pa.Table | None) -> None:
        """Make the file hold this table, or be absent, unless it does already."""
        with contextlib.suppress(FlowjaxError):  # what is damaged is written anew
            there = read_table(path) if path.exists() else None
            if there is table or (there is not None and table is not None and _same(there, table)):
                return
        self.claim()
        with writing(self.path):
            if table is None:
                path.unlink(missing_ok=True)
            else:
                self._write_table(path, table)

    def _write_table(self, path: Path, rows: pa.Table) -> None:
        if not self._remote:
            path.parent.mkdir(exist_ok=True)
        write_table(path, rows)

    def claim(self) -> None:
        """Hold the lock, and have our manifest in the folder, before anything is written.

        Raises:
            FlowjaxError: see `write`.
        """
        if not self._leads:
            return
        with writing(self.path):
            if self._claimed:
                self._check_lock()
                return
            if not self._remote:
                self._folder.mkdir(parents=True, exist_ok=True)
            if self._release is None:
                self._lock()
            self._check()
            if self._replace:
                self._clear()
                self._replace = False
            if not self._remote:
                self._remove_leftovers()
            if self._found() is None:
                text = json.dumps(self._manifest, indent=1, sort_keys=True)
                atomically(
                    self._folder / MANIFEST,
                    lambda temporary: temporary.write_text(text, encoding="utf-8"),
                )
        self._claimed = True

    def _remove_leftovers(self) -> None:
        """Remove what killed runs left half-written."""
        for folder in (".", PARTS, ANSWERS, FAILED):
            for leftover in (self._folder / folder).glob(".*.*.????????"):
                leftover.unlink()

    def _lock(self) -> None:
        if self._remote:  # there are no locks: `_check_lock` looks at the manifest
            return
        descriptor = lock(self._folder / LOCK)
        if descriptor is None:
            raise FlowjaxError(
                f"{self.path}: another process is writing this run; wait for it to end, or choose "
                "another --out"
            )
        self._release = weakref.finalize(self, os.close, descriptor)
        self._locked = os.fstat(descriptor)

    def _check_lock(self) -> None:
        """Refuse a folder that was removed and made anew, and may be another run's by now."""
        if self._remote:
            found = self._found()
            same = found is not None and found["digest"] == self._manifest["digest"]
        else:
            there = os.stat(self._folder / LOCK)
            same = self._locked is not None and os.path.samestat(there, self._locked)
        if not same:
            raise FlowjaxError(f"{self.path} was replaced while this run was written; run it again")

    def _clear(self) -> None:
        """Remove a run's results, then its manifest; the folder itself may be a link's or `.`."""
        if self._remote:
            for entry in list(self._folder.iterdir()):
                if entry.name != MANIFEST:
                    remove_tree(entry)
            (self._folder / MANIFEST).unlink(missing_ok=True)
            return
        for entry in self._folder.iterdir():
            if entry.name in (LOCK, MANIFEST):
                continue
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                entry.unlink()
        (self._folder / MANIFEST).unlink(missing_ok=True)

    def _check(self) -> None:
        """Refuse a folder that is not ours."""
        if not self._folder.exists():
            return
        found = self._found()
        if found is None:
            if self._is_free():
                return
            if self._replace:
                raise FlowjaxError(
                    f"{self.path} is not a flowjax run, so --overwrite leaves it alone; "
                    "choose another --out"
                )
            raise FlowjaxError(
                f"{self.path} already exists; choose another --out or give --overwrite"
            )
        if not self._replace and found["digest"] != self._manifest["digest"]:
            raise FlowjaxError(self._differences(found))

    def _is_free(self) -> bool:
        """Whether the folder is empty but for what a run leaves that was killed at its start."""
        with writing(self.path):
            if not self._folder.is_dir():
                return False
            return all(
                entry.name == LOCK or entry.name.startswith(f".{MANIFEST}.")
                for entry in self._folder.iterdir()
            )

    def _found(self) -> dict[str, Any] | None:
        try:
            value = json.loads((self._folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        is_run = isinstance(value, dict) and isinstance(value.get("settings"), dict)
        return value if is_run and isinstance(value.get("digest"), str) else None

    def _differences(self, found: Mapping[str, Any]) -> str:
        ours, theirs = self.settings, found["settings"]
        names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        differences = "; ".join(
            f"{name} is {_short(theirs.get(name))} there and {_short(ours.get(name))} here"
            for name in names
        )
        return (
            f"{self.path} holds a run with other settings ({differences}); "
            "choose another --out or give --overwrite"
        )


def digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings written as canonical JSON."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _failure(sample: Sample, error: str) -> pa.Table:
    row = {
        "sample_id": sample.sample_id,
        "task": sample.task,
        "video": printable(sample.video),
        "error": error.encode("utf-8", "backslashreplace").decode(),  # it may name any file
    }
    return pa.Table.from_pylist([row], FAILURES)


def _same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables hold the same, numbers that are no number among it."""
    if one.schema != other.schema or one.num_rows != other.num_rows:
        return False
    return all(
        ours.equals(theirs)
        or (
            pa.types.is_floating(ours.type)
            and np.array_equal(ours.to_numpy(), theirs.to_numpy(), equal_nan=True)
        )
        for ours, theirs in zip(one.columns, other.columns, strict=True)
    )


def _joined(schema: pa.Schema, tables: Mapping[int, pa.Table]) -> pa.Table:
    """The tables in the order of their samples, without what each says it is made of."""
    every = [tables[index].replace_schema_metadata(None) for index in sorted(tables)]
    return pa.concat_tables([schema.empty_table(), *every])


def _short(value: object, most: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + "..."
