"""What an object store holds, on this machine, for libraries that read nothing but files."""

import functools
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

from flowjax.cache import cache_folder
from flowjax.errors import FlowjaxError
from flowjax.paths import files_under, is_remote


def copied(path: Path) -> Path:
    """A file or folder of an object store, copied into the cache if it is not there as it is now.

    What is on this machine is given as it is. A process looks at the store once for each.

    Raises:
        FlowjaxError: it is not there, or cannot be copied.
    """
    return _copied(path) if is_remote(path) else path


def size_of(path: Path) -> int:
    """Bytes of a file, wherever it is."""
    return cast(Any, path.stat()).length if is_remote(path) else path.stat().st_size


@functools.cache
def _copied(path: Path) -> Path:
    try:
        files = [path] if path.is_file() else list(files_under(path))
        states = [cast(Any, file.stat()) for file in files]
    except OSError as error:
        raise FlowjaxError(f"{path} cannot be read: {error}") from error
    if not files:
        raise FlowjaxError(f"{path} is missing")
    known = sorted((str(f), s.length, s.mtime) for f, s in zip(files, states, strict=True))
    key = hashlib.sha256(repr(known).encode()).hexdigest()[:24]
    home = cache_folder("objects") or Path(_held().name)
    local = home / key / path.name
    if local.exists():
        return local
    try:
        private = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=home))
        try:
            for file in files:
                within = "" if file == path else file.relative_to(path).as_posix()
                target = private / path.name / within
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
            private.rename(home / key)
        finally:
            shutil.rmtree(private, ignore_errors=True)
    except OSError as error:
        if not local.exists():  # another process may have been quicker
            raise FlowjaxError(f"{path} cannot be copied to {home}: {error}") from error
    return local


@functools.cache
def _held() -> tempfile.TemporaryDirectory[str]:
    """A folder of this process, where nothing can be kept for longer."""
    return tempfile.TemporaryDirectory()
