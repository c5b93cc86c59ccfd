"""Reading JSON objects, and writing files that are complete or absent."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowjax.errors import FlowjaxError


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name, flush it to disk, and give it its name when complete.

    Args:
        path: the file's final name; its folder must exist.
        write: called with the temporary name.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse early a path that could not be created.

    Raises:
        FlowjaxError: the nearest existing parent is a file or is not writable.
    """
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise FlowjaxError(f"{path} cannot be made: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise FlowjaxError(f"{path} cannot be made: {parent} is not writable")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        FlowjaxError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FlowjaxError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise FlowjaxError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(value, dict):
        raise FlowjaxError(f"{path}: must hold a JSON object")
    return value
