"""Paths on this machine's file systems and in object stores.

A local path is a `pathlib.Path`. `gs://BUCKET/...` is one of `etils.epath`, which reads and writes
through fsspec and has the methods of `pathlib.Path` that are used here.
"""

import functools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PosixPath
from typing import Any, cast

from flowjax.errors import FlowjaxError

STORE = "gs://"


def as_path(path: str | os.PathLike[str]) -> Path:
    """The path that a user wrote.

    Raises:
        FlowjaxError: another kind of address than `gs://`, or its library is not installed.
    """
    text = os.fspath(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is None:
        return Path(path)
    if not text.startswith(STORE):
        raise FlowjaxError(f"{text}: give a path on this machine or {STORE}BUCKET/...")
    import fsspec  # noqa: PLC0415 - slow to import, and of no use for local paths

    try:
        fsspec.get_filesystem_class("gcs")
    except ImportError as error:
        raise FlowjaxError(
            f"{text} needs the library gcsfs: pip install 'flowjax-videollm[gcs]'"
        ) from error
    return _store_path()(text)


@functools.cache
def _store_path() -> type[Path]:
    """Paths of `etils.epath` that are also what everything here is annotated with."""
    from etils.epath.gpath import PosixGPath  # noqa: PLC0415 - as above

    class StorePath(PosixGPath, PosixPath):  # pyright: ignore - it overrides as epath has it
        """A path at `gs://`."""

        def __reduce__(self) -> tuple[Any, ...]:
            """For processes that decode or write: the class itself cannot be found by name."""
            return as_path, (os.fspath(self),)

    return StorePath


def is_remote(path: Path) -> bool:
    """Whether a path is in an object store, which has neither rename nor locks."""
    return os.fspath(path).startswith(STORE)  # a local path has no two slashes


def files_under(path: Path) -> Iterator[Path]:
    """Every file in a folder and in those below it; `rglob` is not for object stores."""
    for entry in path.iterdir():
        if entry.is_dir():
            yield from files_under(entry)
        else:
            yield entry


def kvstore(path: Path) -> dict[str, str]:
    """Where tensorstore finds the files of a folder."""
    if is_remote(path):
        bucket, _, name = os.fspath(path).removeprefix(STORE).partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": f"{name}/"}
    return {"driver": "file", "path": f"{path.absolute()}/"}


def remove_tree(path: Path) -> None:
    """Remove a folder and everything in it; in an object store, what is below a path.

    Raises:
        OSError: something cannot be removed.
    """
    if is_remote(path):
        cast(Any, path).rmtree(missing_ok=True)
    else:
        shutil.rmtree(path)
