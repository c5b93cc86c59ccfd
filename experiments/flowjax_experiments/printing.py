"""How experiments print: tables that take no markup from names, and intervals."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flowjax.report.statistics import Interval

WIDTH = 110
"""Characters of a table's line where output is not a terminal."""


def print_table(
    title: str, text: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Print rows under the columns `text`, aligned left, and `numbers`, aligned right."""
    shown = Table(title=escape(title))
    for name in text:
        shown.add_column(name)
    for name in numbers:
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(*map(escape, row))
    Console(width=None if Console().is_terminal else WIDTH).print(shown)


def ends(interval: Interval, form: str) -> str:
    """The interval's ends in a format such as `+.1f`."""
    if interval.n < 2:
        return "one sample"
    return f"[{interval.low:{form}}, {interval.high:{form}}]"


def yes(said: bool) -> str:
    """Yes or no."""
    return "yes" if said else "no"
