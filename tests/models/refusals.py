"""Every key and every configuration field of a checkpoint, damaged one at a time.

For any family's test, with a small checkpoint that can be converted::

    check_keys_refused(checkpoint)
    check_fields_refused(checkpoint, unread={"image_seq_length"})
"""

import copy
import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from flowjax.errors import FlowjaxError
from flowjax.hf_config import ANY, EVERYWHERE
from flowjax.models.registry import family_of
from flowjax.models.video_llm import parameter_shapes
from flowjax_convert.mapping import table_of
from flowjax_convert.plan import make_plan
from flowjax_convert.safetensors_file import TensorHeader
from flowjax_convert.source import Source, open_source

AT_ONE_VALUE = [name for entry in EVERYWHERE if entry.at is not ANY for name in entry.fields]
"""Fields of any configuration that must have one value."""

UNSUPPORTED = ("nonsense", [7], -30)
"""No field of any configuration may have one of these values."""


@dataclass
class Damaged:
    """A source with other headers; what is read is the original's."""

    original: Source
    headers: Mapping[str, TensorHeader]

    def tensor(self, key: str) -> np.ndarray:
        return self.original.tensor(key)

    def release(self, key: str) -> None:
        self.original.release(key)


@contextmanager
def types_unchecked() -> Iterator[None]:
    """For hundreds of repeats of what runs elsewhere with its types checked, at twice the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@types_unchecked()
def check_keys_refused(checkpoint: Path, unread: tuple[str, ...] = ()) -> None:
    """Each key removed, renamed or made one row longer is refused with that key in the message.

    unread: beginnings of keys that no video needs.
    """
    fields = json.loads((checkpoint / "config.json").read_text())
    config = family_of(fields, "").read_config(fields, "config.json")
    source, table = open_source(checkpoint), table_of(config, fields)
    shapes = parameter_shapes(config)
    make_plan(source, table, shapes, None)

    def refused(headers: Mapping[str, TensorHeader], *words: str) -> None:
        with pytest.raises(FlowjaxError) as caught:
            make_plan(Damaged(source, headers), table, shapes, None)
        assert "\n" not in str(caught.value)
        for word in words:
            assert word in str(caught.value)

    for key, header in source.headers.items():
        if key.startswith(unread):
            continue
        others = {name: other for name, other in source.headers.items() if name != key}
        refused(others, key)
        refused(others | {key + "_": header}, key, key + "_")
        longer = dataclasses.replace(header, shape=(header.shape[0] + 1, *header.shape[1:]))
        refused(others | {key: longer}, key)
        if len(header.shape) > 1 and len(set(header.shape)) > 1:
            swapped = dataclasses.replace(header, shape=header.shape[::-1])
            refused(others | {key: swapped}, key)


@types_unchecked()
def check_fields_refused(checkpoint: Path, unread: Collection[str]) -> None:
    """Each field that is read, at values that are not supported, and unknown fields, are refused.

    unread: fields (dotted where nested) that say nothing about the forward computation, besides
        those of `hf_config.EVERYWHERE`.
    """
    fields = json.loads((checkpoint / "config.json").read_text())
    family = family_of(fields, "")
    family.read_config(fields, "config.json")

    def refused(path: tuple[str, ...], value: object) -> None:
        changed = copy.deepcopy(fields)
        part = changed
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        with pytest.raises(FlowjaxError) as caught:
            family.read_config(changed, "config.json")
        assert "\n" not in str(caught.value)
        assert path[-1] in str(caught.value), (path, value)

    read = [path for path in paths(fields) if ".".join(path) not in unread and _at(fields, path)]
    assert len(read) > 15
    for path in read:
        for value in UNSUPPORTED:
            refused(path, value)
    for parent in sorted({path[:-1] for path in read}):
        refused((*parent, "attn_logit_softcapping"), 30.0)
        if not parent or parent[-1].endswith("_config"):
            for name in AT_ONE_VALUE:
                refused((*parent, name), "nonsense")
    assert set(unread) <= {".".join(path) for path in paths(fields)}, "unread names no such field"


def _at(fields: Mapping, path: tuple[str, ...]) -> bool:
    """Whether the field at a path is not null, which is as good as absent."""
    for name in path:
        fields = fields[name]
    return fields is not None


def paths(fields: Mapping, parent: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields that hold a value, but for neutral ones."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from paths(value, (*parent, name))
        elif not any(entry.names(name) for entry in EVERYWHERE):
            yield (*parent, name)
