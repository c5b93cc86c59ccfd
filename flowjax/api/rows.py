"""Results as a table that a notebook reads: Arrow inside, pandas where it is installed."""

import importlib.util
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import pyarrow as pa

from flowjax.errors import FlowjaxError

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingImports]

SHOWN = 20
"""Rows that a notebook shows of a table."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A table of results; each field's metadata says what the column holds."""

    table: pa.Table

    def __len__(self) -> int:
        """How many rows there are."""
        return self.table.num_rows

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a pandas data frame.

        Raises:
            FlowjaxError: pandas is not installed.
        """
        if importlib.util.find_spec("pandas") is None:
            raise FlowjaxError(
                "to_pandas needs pandas, which is not installed: pip install pandas, or read "
                "`.table`, which is Arrow"
            )
        return self.table.to_pandas()

    def __repr__(self) -> str:
        """Size and columns."""
        columns = ", ".join(self.table.column_names)
        return f"{type(self).__name__}({self.table.num_rows} rows: {columns})"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.table.column_names)
        body = "".join(
            "<tr>"
            + "".join(f"<td>{escape(_short(value))}</td>" for value in row.values())
            + "</tr>"
            for row in self.table.slice(0, SHOWN).to_pylist()
        )
        more = self.table.num_rows - SHOWN
        rest = f"<p>and {more} more rows</p>" if more > 0 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
