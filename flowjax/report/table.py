"""Tables as they are printed: no markup from names, intervals in a few forms."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from flowjax.report.statistics import Interval

WIDTH = 110
"""Characters of a table's line where output is not a terminal."""

LAYER = "layer (from 1)"
"""Title of a column of layers: in what is printed or drawn, and only there, the first is 1."""

JUDGED = ("95% interval", "excludes 0")
"""Titles of the columns of `judged`."""


@dataclass(frozen=True)
class Table:
    """Rows under the columns `text`, aligned left, and `numbers`, aligned right."""

    title: str
    text: Sequence[str]
    numbers: Sequence[str]
    rows: Sequence[Sequence[str]]

    def print(self) -> None:
        """On standard output, no wider than it or `WIDTH`."""
        shown = RichTable(title=escape(self.title))
        for name in self.text:
            shown.add_column(name)
        for name in self.numbers:
            shown.add_column(name, justify="right")
        for row in self.rows:
            shown.add_row(*map(escape, row))
        Console(width=None if sys.stdout.isatty() else WIDTH).print(shown)


def ends(interval: Interval, form: str) -> str:
    """The interval's ends in a format such as `+.1f`."""
    if interval.n < 2:
        return "one sample"
    return f"[{interval.low:{form}}, {interval.high:{form}}]"


def mean(interval: Interval, form: str) -> list[str]:
    """Cells of a mean and its interval."""
    return [f"{interval.mean:{form}}", ends(interval, form)]


def judged(interval: Interval, form: str) -> list[str]:
    """Cells of a mean, its interval, and whether that excludes zero."""
    return [*mean(interval, form), yes(interval.excludes_zero)]


def yes(said: bool) -> str:
    """Yes or no."""
    return "yes" if said else "no"
