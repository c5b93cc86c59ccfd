"""A progress bar for work that takes more than a moment."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PATIENCE = 2.0
"""Seconds before the bar appears."""


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show bytes done of `total` on standard error, if that is a terminal.

    Yields a function that adds to the bytes done and may be called from any thread.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task(title, total=total)
    started, lock = time.monotonic(), threading.Lock()

    def advance(count: int) -> None:
        bar.advance(task, count)
        with lock:
            if not bar.live.is_started and time.monotonic() - started > PATIENCE:
                bar.start()

    try:
        yield advance
    finally:
        bar.stop()
