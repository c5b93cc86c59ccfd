"""Parquet files of any name, written completely or not at all."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flowjax.errors import FlowjaxError
from flowjax.files import atomically


def write_table(path: Path, rows: pa.Table) -> None:
    """Write a table; its folder must exist.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # by name, Arrow opens none that is not UTF-8
            pq.write_table(rows, file)

    atomically(path, write)


def read_table(path: Path) -> pa.Table:
    """Read a table.

    Raises:
        FileNotFoundError: there is no such file.
        FlowjaxError: it cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as file:
            return pq.read_table(file)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise FlowjaxError(f"{path} cannot be read: {error}") from None


def read_metadata(path: Path) -> dict[bytes, bytes] | None:
    """What a table says of itself as a whole; None if it cannot be read or is damaged."""
    try:
        with path.open("rb") as file:
            return pq.read_schema(file).metadata or {}
    except (OSError, pa.ArrowException):
        return None
