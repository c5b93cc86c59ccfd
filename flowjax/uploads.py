"""A folder in an object store that appears complete or not at all.

A store has no rename. The folder is filled on this machine, and sent when it is complete: first
`MARK`, which says that what is there is not to be relied on, then every file, last the one that
readers look for, and `MARK` goes.
"""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from flowjax.files import send
from flowjax.paths import remove_tree
from flowjax.progress import BYTES, progress_bar

MARK = ".flowjax-incomplete"
"""The object that is in a folder whose upload has not ended."""

THREADS = 8
"""Files sent at a time; each is in memory."""


@contextmanager
def new_remote_folder(out: Path, sign: str) -> Iterator[Path]:
    """A folder of this machine to fill, which is sent to `out` when the block ends.

    Args:
        out: at `gs://`. What is there is removed before anything is sent.
        sign: the file without which nothing takes a folder for one of this kind.

    Raises:
        OSError: something cannot be written or sent; what has been sent has `MARK` beside it.
    """
    with tempfile.TemporaryDirectory() as name:
        partial = Path(name)
        yield partial
        send(b"", out / MARK)
        (out / sign).unlink(missing_ok=True)
        for entry in list(out.iterdir()):
            if entry.name != MARK:
                remove_tree(entry)
        files = sorted(file for file in partial.rglob("*") if file.is_file())
        files.sort(key=lambda file: file == partial / sign)
        total = sum(file.stat().st_size for file in files)
        with (
            progress_bar(f"sending {out.name}", total, columns=BYTES) as advance,
            ThreadPoolExecutor(THREADS) as pool,
        ):

            def one(file: Path) -> None:
                send(file.read_bytes(), out / file.relative_to(partial).as_posix())
                advance(file.stat().st_size)

            for _ in pool.map(one, files[:-1]):
                pass
            one(files[-1])
        (out / MARK).unlink()


def is_free_remote(out: Path) -> bool:
    """Whether nothing is below a path, or what an upload left that did not end."""
    return (out / MARK).exists() or not out.exists() or not any(out.iterdir())


def staging() -> Path:
    """Where folders are filled before they are sent."""
    return Path(os.path.realpath(tempfile.gettempdir()))
