"""A directory that appears complete or not at all."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flowjax.errors import FlowjaxError
from flowjax.paths import is_remote
from flowjax.uploads import is_free_remote, new_remote_folder


def is_free(out: Path) -> bool:
    """Whether nothing is at a path, or an empty directory, or a link to either.

    Raises:
        OSError: the path cannot be looked at.
    """
    if is_remote(out):
        return is_free_remote(out)
    real = Path(os.path.realpath(out))
    return not real.exists() or (real.is_dir() and not any(real.iterdir()))


@contextmanager
def new_directory(out: Path, sign: str) -> Iterator[Path]:
    """A directory to fill, which becomes `out` when the block ends and vanishes if it raises.

    Whatever `out` was before is replaced at that moment. A run that was killed leaves its
    directory beside `out`, under a name that starts with a dot; the next run for the same `out`
    removes it, unless the file system has no locks, which tell whether it is in use.

    In an object store it is filled on this machine and sent (see `flowjax.uploads`).

    Args:
        out: the directory, or a link to it, which stays.
        sign: name of something that every complete directory of this kind has in it.

    Raises:
        FlowjaxError: the directory cannot be made, or another process is writing the same `out`.
        OSError: it cannot be completed; nothing is left of it.
    """
    if is_remote(out):
        with new_remote_folder(out, sign) as partial:
            yield partial
        return
    out = Path(os.path.realpath(out))
    created = _make_parents(out)
    try:
        _remove_leftovers(out, sign)
        partial = Path(tempfile.mkdtemp(prefix=_prefix(out, "partial"), dir=out.parent))
    except OSError as error:
        _remove_empty(created)
        raise FlowjaxError(f"{out} cannot be written: {error.strerror}") from error
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        _lock(descriptor, partial, out)
        yield partial
        sync(partial)
        os.chmod(partial, 0o777 & ~_umask())
        _replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        _remove_empty(created)
        raise
    finally:
        os.close(descriptor)


def sync(directory: Path) -> None:
    """Bring every file of a directory to the disk."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in (*names, "."):
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _replace(partial: Path, out: Path) -> None:
    old = None
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=_prefix(out, "old"), dir=out.parent))
    try:
        if old is not None:
            os.rename(out, old)
        os.rename(partial, out)
    except OSError:
        if old is not None:
            old.rmdir() if out.exists() else os.rename(old, out)
        raise
    with suppress(OSError):  # it is there, whatever a power cut may do to it
        parent = os.open(out.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(out: Path, sign: str) -> None:
    """Remove what killed runs left; bring back an old `out` if its replacement never arrived."""
    for partial in _siblings(out, "partial"):  # first: one in use may be about to replace `out`
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            if _lock(descriptor, partial, out):
                shutil.rmtree(partial)
        finally:
            os.close(descriptor)
    for old in _siblings(out, "old"):
        if not out.exists() and (old / sign).exists():
            os.rename(old, out)
        else:
            shutil.rmtree(old, ignore_errors=True)


def _lock(descriptor: int, partial: Path, out: Path) -> bool:
    """Lock an open directory until it is closed; False where the file system has no locks.

    Raises:
        FlowjaxError: another process holds the lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FlowjaxError(
            f"{out}: another process is writing it ({partial.name}); wait for it to end"
        ) from None
    except OSError:
        return False
    return True


def _prefix(out: Path, kind: str) -> str:
    return f".{out.name}.{kind}-"


def _siblings(out: Path, kind: str) -> list[Path]:
    """Directories beside `out` that `tempfile.mkdtemp` named with `_prefix`."""
    name = re.compile(re.escape(_prefix(out, kind)) + r"[a-z0-9_]{8}")
    return sorted(path for path in out.parent.iterdir() if name.fullmatch(path.name))


def _make_parents(out: Path) -> list[Path]:
    """Create the parents of `out`; returns those that were missing, innermost first."""
    missing = []
    parent = out.parent
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(missing)
        raise FlowjaxError(f"{out} cannot be written: {error.strerror}") from error
    return missing


def _remove_empty(directories: list[Path]) -> None:
    """Remove those that are there and empty, the innermost first."""
    for directory in directories:
        with suppress(OSError):
            directory.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
