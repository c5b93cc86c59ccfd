"""Files of questions that are tables: JSON lines, CSV and Parquet."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flowjax.data.entry import Entry
from flowjax.errors import FlowjaxError
from flowjax.files import check_fetched, read_text

ENDINGS = (".jsonl", ".csv", ".parquet")


def table_rows(
    file: Path, make: Callable[[object], Entry]
) -> Iterator[tuple[str, Callable[[], Entry]]]:
    """The entries of a table, in order.

    Raises:
        FlowjaxError: it cannot be read.
    """
    for where, value in _values(file):
        yield where, lambda value=value: make(value)


def _values(file: Path) -> Iterator[tuple[str, object]]:
    if file.suffix.lower() == ".parquet":
        with file.open("rb") as handle:
            check_fetched(file, handle.read(200))
        try:
            with file.open("rb") as handle:  # by name, Arrow opens none that is not UTF-8
                for batch in pq.ParquetFile(handle).iter_batches(10_000):
                    for index, value in enumerate(batch.to_pylist()):
                        yield f"entry {index}", value
        except pa.ArrowException as error:
            raise FlowjaxError(f"{file} cannot be read: {error}") from None
    elif file.suffix.lower() == ".csv":
        yield from _csv(file)
    else:
        for number, line in enumerate(read_text(file).split("\n"), 1):
            if line.strip():
                yield f"line {number}", _json(file, number, line)


def _csv(file: Path) -> Iterator[tuple[str, object]]:
    reader = csv.reader(read_text(file).splitlines(keepends=True), strict=True)
    try:
        names = next(reader, [])
        for values in reader:
            if not values:
                continue
            if len(values) != len(names):
                raise FlowjaxError(
                    f"{file}: line {reader.line_num}: {len(values)} values where the first line "
                    f"names {len(names)}"
                )
            yield f"line {reader.line_num}", dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise FlowjaxError(f"{file}: line {reader.line_num}: no CSV: {error}") from None


def _json(file: Path, number: int, line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FlowjaxError(f"{file}: line {number}: not readable as JSON: {error}") from None
