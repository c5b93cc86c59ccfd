"""Files of questions in JSON: a list of entries, or entries by key."""

from collections.abc import Callable, Iterator
from pathlib import Path

from flowjax.data.entry import Entry
from flowjax.errors import FlowjaxError
from flowjax.files import printable, read_json, read_json_value


def task_files(folder: Path, ending: str = ".json") -> dict[str, Path]:
    """The files of tasks in a folder, by name, sorted; one that begins with a dot is none."""
    files = (path for path in folder.glob(f"*{ending}") if not path.name.startswith("."))
    return {printable(path.name.removesuffix(ending)): path for path in sorted(files)}


def json_rows(
    file: Path, make: Callable[[object], Entry]
) -> Iterator[tuple[str, Callable[[], Entry]]]:
    """The entries of a file that holds a list, in order.

    Raises:
        FlowjaxError: it holds something else.
    """
    for index, value in enumerate(json_list(file)):
        yield f"entry {index}", lambda value=value: make(value)


def json_list(file: Path) -> list[object]:
    """What a file lists.

    Raises:
        FlowjaxError: it holds no list, or an empty one.
    """
    entries = read_json_value(file)
    if not isinstance(entries, list) or not entries:
        raise FlowjaxError(f"{file} must hold a list of questions")
    return entries


def keyed_rows(
    file: Path, make: Callable[[object], Entry]
) -> Iterator[tuple[str, Callable[[], Entry]]]:
    """The entries of a file that holds them by key, in the order of the file.

    Raises:
        FlowjaxError: it holds something else.
    """
    for key, value in read_json(file).items():
        yield f"entry {key!r}", lambda value=value: make(value)
