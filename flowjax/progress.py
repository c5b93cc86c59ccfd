"""Progress bars on standard error, shown only to a person and only for work that takes a while."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Task as BarTask
from rich.text import Text

PATIENCE = 2.0
"""Seconds before a bar appears."""

MINUTE = 60.0
"""Seconds between lines where there is no bar."""

Advance = Callable[[int | float], None]
"""Called with the number of steps, or part of one, done since the last call; from any thread."""


class _Count(ProgressColumn):
    def render(self, task: BarTask) -> Text:
        rate = "" if task.speed is None else f", {task.speed:.2g}/s"
        return Text(f"{int(task.completed)}/{int(task.total or 0)}{rate}")


STEPS: Sequence[ProgressColumn] = (_Count(), TimeElapsedColumn())
BYTES: Sequence[ProgressColumn] = (DownloadColumn(), TransferSpeedColumn())


@contextmanager
def progress_bar(
    description: str,
    total: int,
    *,
    done: int = 0,
    columns: Sequence[ProgressColumn] = STEPS,
    shown: bool = True,
    lines: bool = False,
) -> Iterator[Advance]:
    """A bar with what is done, the rate and the time left.

    Args:
        description: what is done.
        total: steps, or bytes.
        done: of them before the bar begins.
        columns: `STEPS` or `BYTES`.
        shown: False for nothing at all, where another process shows it.
        lines: a line a minute where there is no terminal, as in the log of a pod.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not (
            shown and sys.stderr.isatty()
        ),  # FORCE_COLOR alone makes rich see a terminal in a file
    )
    task = bar.add_task(description, total=total, completed=done)
    started, lock = time.monotonic(), threading.Lock()
    lines = lines and shown and not sys.stderr.isatty()
    at, said = float(done), started

    def advance(steps: int | float) -> None:
        nonlocal at, said
        bar.advance(task, steps)
        with lock:
            at, now = at + steps, time.monotonic()
            if lines and now - said > MINUTE:
                said, rate = now, (at - done) / (now - started)
                left = f", {(total - at) / rate / MINUTE:.0f} min left" if rate else ""
                print(f"{description} {at:.0f}/{total}{left}", file=sys.stderr, flush=True)
            if not bar.live.is_started and time.monotonic() - started > PATIENCE:
                bar.start()

    try:
        yield advance
    finally:
        bar.stop()
