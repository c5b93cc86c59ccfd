"""Reading text and JSON, writing files that are complete or absent, and locks."""

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flowjax.errors import FlowjaxError
from flowjax.paths import is_remote

POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that Git LFS has put in the place of a large one."""


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name, flush it to disk, and give it its name when complete.

    In an object store, which has no rename, the file is made on this machine and sent in one piece:
    an object is there, whole, when its upload has ended.

    Args:
        path: the file's final name; its folder must exist.
        write: called with the temporary name.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    if is_remote(path):
        _upload(path, write)
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _upload(path: Path, write: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / path.name
        write(temporary)
        content = temporary.read_bytes()
    send(content, path)


def send(content: bytes, path: Path) -> None:
    """Write an object of an object store, which is there, whole, when this returns.

    Raises:
        OSError: it cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError:
        raise
    except Exception as error:  # the stores' libraries have errors of their own
        raise OSError(f"{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line that something at `path` cannot be written, and why.

    Raises:
        FlowjaxError: for every `OSError` of the block.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full; with room on it, the same command goes on"
        raise FlowjaxError(f"{path} cannot be written: {reason}") from error


def check_writable(path: Path) -> None:
    """Refuse early a path that could not be created.

    Raises:
        FlowjaxError: the nearest existing parent is a file or is not writable.
    """
    if is_remote(path):  # nothing but writing shows it
        return
    with writing(path):
        parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise FlowjaxError(f"{path} cannot be made: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise FlowjaxError(f"{path} cannot be made: {parent} is not writable")


def lock(path: Path) -> int | None:
    """Hold the lock of a file, which is made; the system releases it when the process ends.

    Returns:
        A descriptor whose closing releases the lock; None where another process holds it.

    Raises:
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without locks: there is none to wait for
        return descriptor
    return descriptor


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """The absolute path, or for libraries that want UTF-8 a link to it if its name is not.

    Raises:
        FlowjaxError: the link cannot be made.
    """
    if is_remote(path):
        yield path
        return
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        with writing(Path(tempfile.gettempdir())):
            folder = tempfile.TemporaryDirectory()
        with folder as name:
            link = Path(name) / "link"
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path.absolute()


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        FlowjaxError: the file is missing, cannot be read, is no text, or only points to one that
            Git LFS has not fetched.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FlowjaxError(f"{path} is missing") from None
    except OSError as error:
        raise FlowjaxError(f"{path} cannot be read: {error.strerror}") from error
    check_fetched(path, content)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FlowjaxError(f"{path}: not text in UTF-8: {error}") from None


def check_fetched(path: Path, head: bytes) -> None:
    """Refuse a file that begins as the pointers of Git LFS do.

    Raises:
        FlowjaxError: names the file and says how to fetch it.
    """
    if head.startswith(POINTER):
        raise FlowjaxError(
            f"{path} only points to a file that Git LFS has not fetched; run `git lfs pull` there"
        )


def read_json_value(path: Path) -> object:
    """What a JSON file holds.

    Raises:
        FlowjaxError: see `read_text`; or the text is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FlowjaxError(f"{path}: not readable as JSON: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        FlowjaxError: see `read_json_value`; or it holds something else than an object.
    """
    value = read_json_value(path)
    if not isinstance(value, dict):
        raise FlowjaxError(f"{path}: must hold a JSON object")
    return value


def printable(path: Path | str) -> str:
    r"""A path as text that every file and terminal takes: a byte that is no UTF-8 as `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
