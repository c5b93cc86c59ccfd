"""Where a converted model may go."""

import os
import shutil
from pathlib import Path

from flowjax.errors import FlowjaxError
from flowjax.files import check_writable, writing
from flowjax.folders import is_free
from flowjax.models.checkpoint import MANIFEST
from flowjax.paths import is_remote
from flowjax.uploads import staging


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse early what `new_directory` could not make.

    Raises:
        FlowjaxError: `out` exists, is not empty and may not be replaced, or cannot be created.
    """
    with writing(out):
        free = is_free(out)
    if not free:
        if not overwrite:
            raise FlowjaxError(f"{out} already exists; give --overwrite to replace it")
        if not out.is_dir():
            raise FlowjaxError(f"{out} is not a directory; remove it first")
        if not (out / MANIFEST).is_file():
            raise FlowjaxError(
                f"{out} is not a converted model (it has no {MANIFEST}), so --overwrite does not "
                "replace it; remove it first"
            )
    check_writable(out if is_remote(out) else Path(os.path.realpath(out)))


def check_space(out: Path, needed: int) -> None:
    """Refuse where the file system has fewer than `needed` bytes left.

    What goes to an object store is made on this machine first.
    """
    parent = staging() if is_remote(out) else _nearest(out.absolute().parent)
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise FlowjaxError(
            f"{out} cannot be written: it needs {needed / 1e9:.1f} GB, and {parent} has "
            f"{free / 1e9:.1f} GB left"
        )


def _nearest(path: Path) -> Path:
    """The path itself or its nearest ancestor that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
