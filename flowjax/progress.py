"""Progress bars on standard error, shown only to a person."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as BarTask
from rich.text import Text

Advance = Callable[[float], None]
"""Called with the number of steps, or part of one, done since the last call."""


class _Count(ProgressColumn):
    def render(self, task: BarTask) -> Text:
        rate = "" if task.speed is None else f", {task.speed:.2g}/s"
        return Text(f"{int(task.completed)}/{int(task.total or 0)}{rate}")


@contextmanager
def progress_bar(description: str, total: int, done: int = 0) -> Iterator[Advance]:
    """A bar with count, rate and time left; nothing where standard error is no terminal."""
    console = Console(stderr=True)
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        _Count(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(description, total=total, completed=done)
        yield lambda steps: progress.advance(bar, steps)
