"""Tables as they are printed: no markup from names, intervals in a few forms."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable

from flowjax.report.statistics import LEAST, LEVEL, Interval

WIDTH = 116
"""Characters of a table's line where output is not a terminal."""

LAYER = "layer (from 1)"
"""Title of a column of layers: in what is printed or drawn, and only there, the first is 1."""

JUDGED = ("95% interval", "adj. p", "effect")
"""Titles of the columns of `judged` after the mean's own."""

TOO_FEW = f"n < {LEAST}"


@dataclass(frozen=True)
class Table:
    """Rows under the columns `text`, aligned left, and `numbers`, aligned right; a note below."""

    title: str
    text: Sequence[str]
    numbers: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def print(self) -> None:
        """On standard output, no wider than it or `WIDTH`, and with every character of a cell."""
        # Without force_terminal, FORCE_COLOR makes a terminal of a file.
        terminal = sys.stdout.isatty()
        console = Console(width=None if terminal else WIDTH, force_terminal=terminal)
        shown = self._drawn()
        endless = console.options.update(max_width=10_000)
        if Measurement.get(console, endless, shown).maximum > console.width:
            shown = self._drawn("\n")
        console.print(shown)

    def _drawn(self, between: str = " ") -> RichTable:
        """With something between the words of the numbers' titles; what is too long is folded."""
        note = escape(self.note) or None
        shown = RichTable(title=escape(self.title), caption=note, caption_justify="left")
        for name in self.text:
            shown.add_column(name, overflow="fold")
        for name in self.numbers:
            shown.add_column(between.join(name.split()), justify="right", overflow="fold")
        for row in self.rows:
            shown.add_row(*map(escape, row))
        return shown


def ends(interval: Interval, form: str) -> str:
    """The interval's ends in a format such as `+.1f`."""
    if math.isnan(interval.low):
        return TOO_FEW
    return f"[{interval.low:{form}}, {interval.high:{form}}]"


def mean(interval: Interval, form: str) -> list[str]:
    """Cells of a mean and its interval."""
    return [f"{interval.mean:{form}}", ends(interval, form)]


def judged(interval: Interval, form: str) -> list[str]:
    """Cells of a mean, its interval, its adjusted p, and whether it is an effect."""
    return [*mean(interval, form), *verdict(interval)]


def verdict(interval: Interval) -> list[str]:
    """Cells of an adjusted p and whether the mean is an effect; none is said of too few samples."""
    if math.isnan(interval.p):
        return ["", TOO_FEW]
    return [f"{interval.p:.4f}", yes(interval.is_effect)]


BOOTSTRAP = "studentised bootstrap"
PAIRED = "Bonett & Price's"
SHARES = f"Wilson's of accuracy, {PAIRED} of its change"
"""Kinds of intervals."""


def tested_note(what: str, intervals: str = BOOTSTRAP) -> str:
    """What the columns of `judged` mean, for a table of means that were tested together.

    Args:
        what: all of them, such as "all 88 windows of all edges".
        intervals: of the table, which kind.
    """
    return (
        f"effect: adj. p < {LEVEL:g} (adjusted: sign flips of samples, against the largest of "
        f"{what}) and an interval without 0; intervals: {intervals}, each alone; "
        f"no verdict below {LEAST} samples"
    )


def yes(said: bool) -> str:
    """Yes or no."""
    return "yes" if said else "no"
