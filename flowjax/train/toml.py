"""TOML files as frozen dataclasses: every field checked, none overlooked."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from flowjax.errors import FlowjaxError
from flowjax.files import read_text
from flowjax.paths import as_path

T = TypeVar("T")

WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def read_toml(path: Path, kind: type[T]) -> T:
    """What a file says, as a dataclass whose fields are its tables and values.

    Relative paths count from the file's folder. A field without a value has its default.

    Raises:
        FlowjaxError: the file is no TOML, or a field is missing, unknown or of another type; names
            the file and the field.
    """
    values = toml_values(path)
    try:
        return _made(kind, values, "", path.parent)
    except FlowjaxError as error:
        raise FlowjaxError(f"{path}: {error}") from None


def toml_values(path: Path) -> dict[str, Any]:
    """What a file says.

    Raises:
        FlowjaxError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise FlowjaxError(f"{path}: not readable as TOML: {error}") from None


def _made(kind: type[T], values: Mapping[str, Any], name: str, folder: Path) -> T:
    assert dataclasses.is_dataclass(kind)
    hints, within = get_type_hints(kind), f"{name}." if name else ""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for other in values:
        if other not in fields:
            raise FlowjaxError(f"{within}{other} is unknown; there are {', '.join(fields)}")
    made = {}
    for own, field in fields.items():
        if own in values:
            made[own] = _value(hints[own], values[own], f"{within}{own}", folder)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise FlowjaxError(f"{within}{own} is missing")
    try:
        return kind(**made)
    except FlowjaxError as error:
        raise FlowjaxError(f"{within}{error}") from None


def _value(kind: Any, value: object, name: str, folder: Path) -> Any:  # noqa: ANN401 - any type
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
        return _value(kind, value, name, folder)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise FlowjaxError(f"{name} must be a table, [{name}]")
        return _made(kind, value, name, folder)
    if get_origin(kind) is tuple:
        return _several(get_args(kind), value, name, folder)
    if kind is Path:
        text = _plain(str, value, name)
        return as_path(text) if "://" in text else folder / text
    return _plain(kind, value, name)


def _several(kinds: tuple[Any, ...], value: object, name: str, folder: Path) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise FlowjaxError(f"{name} must be a list; it is {value!r}")
    each = kinds[:1] * len(value) if kinds[1:] == (...,) else kinds
    if len(each) != len(value):
        raise FlowjaxError(f"{name} must list {len(each)} values; it is {value!r}")
    return tuple(
        _value(kind, one, f"{name}[{index}]", folder)
        for index, (kind, one) in enumerate(zip(each, value, strict=True))
    )


def _plain(kind: Any, value: Any, name: str) -> Any:  # noqa: ANN401 - of that type
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise FlowjaxError(f"{name} must be {WORDS[kind]}; it is {value!r}")
    return value
