"""Results that survive: one atomic Parquet part per sample, and a manifest of the settings.

    RUN/manifest.json       what was asked: model, samples, edges, windows, code version, digest
    RUN/parts/000000.parquet    rows of sample 0, complete or absent
    RUN/failed/000001.parquet   why sample 1 could not be read
    RUN/results.parquet     all rows in sample order, once every sample is done
    RUN/failures.parquet    the samples that could not be read, if there are any

Killed at any moment, the same command goes on after the last finished sample.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.files import atomically, check_writable

FORMAT = 2

FAILURES = pa.schema([(name, pa.string()) for name in ("sample_id", "task", "video", "error")])
"""Columns of `failures.parquet`."""


class RunStore:
    """The folder of one run; made when the first sample is written."""

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        samples: int,
        *,
        schema: pa.Schema,
        overwrite: bool = False,
    ) -> None:
        """Open a run for going on with, or a new one.

        Args:
            path: the run's folder.
            settings: everything that decides the results, as JSON values.
            samples: how many samples the run has.
            schema: of the rows.
            overwrite: replace another run in this folder.

        Raises:
            FlowjaxError: the folder holds something else, a run with other settings (named in the
                message), or cannot be written.
        """
        self.path = path
        self._samples = samples
        self._schema = schema
        self._manifest = {
            "format": FORMAT,
            "digest": digest(settings),
            "samples": samples,
            "settings": json.loads(json.dumps(settings)),
        }
        self._replace = overwrite and path.exists()
        found = self._found()
        if not path.exists():
            check_writable(path)
        elif overwrite:
            if found is None and not (path.is_dir() and not any(path.iterdir())):
                raise FlowjaxError(
                    f"{path} is not a flowjax run, so --overwrite leaves it alone; "
                    "choose another --out"
                )
        elif found is None:
            raise FlowjaxError(f"{path} already exists; choose another --out or give --overwrite")
        elif found["digest"] != self._manifest["digest"]:
            raise FlowjaxError(self._differences(found))

    @property
    def done(self) -> frozenset[int]:
        """Indices of the samples that need no more work: their rows or their failure is stored."""
        return self._stored("parts") | self._stored("failed")

    def write(self, index: int, rows: pa.Table) -> None:
        """Store the rows of one sample: all of them or none.

        Raises:
            FlowjaxError: the disk is full or not writable; what was finished stays.
        """
        self._create()
        self._write_table(self._file("parts", index), rows)

    def fail(self, index: int, sample: Sample, error: str) -> None:
        """Store that a sample cannot be read, and why.

        Raises:
            FlowjaxError: the disk is full or not writable; what was finished stays.
        """
        self._create()
        row = {
            "sample_id": sample.sample_id,
            "task": sample.task,
            "video": str(sample.video),
            "error": error,
        }
        self._write_table(self._file("failed", index), pa.Table.from_pylist([row], FAILURES))

    def finish(self) -> tuple[pa.Table, pa.Table]:
        """Join the parts into `results.parquet`; return the rows, and the failures.

        Raises:
            FlowjaxError: a sample is missing, or the disk is full.
        """
        missing = set(range(self._samples)) - self.done
        if missing:
            raise FlowjaxError(f"{self.path}: sample {min(missing)} has no results")
        failures = self._joined("failed", FAILURES)
        if failures.num_rows:
            self._write_table(self.path / "failures.parquet", failures)
        table = self._joined("parts", self._schema)
        self._write_table(self.path / "results.parquet", table)
        return table, failures

    def _file(self, folder: str, index: int) -> Path:
        return self.path / folder / f"{index:06d}.parquet"

    def _stored(self, folder: str) -> frozenset[int]:
        if self._replace or not self.path.exists():
            return frozenset()
        return frozenset(int(part.stem) for part in (self.path / folder).glob("*.parquet"))

    def _joined(self, folder: str, schema: pa.Schema) -> pa.Table:
        indices = sorted(self._stored(folder))
        parts = [pq.read_table(self._file(folder, index)) for index in indices]
        return pa.concat_tables([schema.empty_table(), *parts])

    def _create(self) -> None:
        if self._replace:
            old = self.path.with_name(f".{self.path.name}.replaced")
            shutil.rmtree(old, ignore_errors=True)
            self.path.rename(old)
            self._replace = False
            shutil.rmtree(old)
        if (self.path / "manifest.json").exists():
            return
        with _disk_errors(self.path):
            for folder in ("parts", "failed"):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            text = json.dumps(self._manifest, indent=1, sort_keys=True)
            atomically(
                self.path / "manifest.json",
                lambda temporary: temporary.write_text(text, encoding="utf-8"),
            )

    def _write_table(self, path: Path, rows: pa.Table) -> None:
        with _disk_errors(self.path):
            atomically(path, lambda temporary: pq.write_table(rows, temporary))

    def _found(self) -> dict[str, Any] | None:
        try:
            value = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) and "digest" in value else None

    def _differences(self, found: Mapping[str, Any]) -> str:
        ours, theirs = self._manifest["settings"], found.get("settings", {})
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


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise FlowjaxError(
                f"{path}: the disk is full; finished samples are kept, and the same command "
                "goes on from them"
            ) from None
        raise FlowjaxError(f"{path} cannot be written: {error.strerror or error}") from None


def _short(value: object, most: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + "..."
