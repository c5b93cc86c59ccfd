"""One safetensors file as memory-mapped tensors.

Layout (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, a JSON header
that gives every tensor's dtype, shape and byte range, then the bytes without gaps.
"""

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from flowjax.errors import FlowjaxError
from flowjax.files import POINTER, check_fetched

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
    "C64": 8,
}  # fmt: skip
READABLE = MappingProxyType(
    {
        "F32": np.dtype(np.float32),
        "F16": np.dtype(np.float16),
        "BF16": np.dtype(ml_dtypes.bfloat16),
    }
)
"""The dtypes that weights may have, by their safetensors names."""
LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the format's reference implementation."""


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of one tensor; `start` and `stop` are byte offsets in the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_headers(path: Path) -> dict[str, TensorHeader]:
    """Headers of all tensors of a file, by key; reads no weights.

    Raises:
        FlowjaxError: missing, truncated, not in the format, or not fetched by Git LFS.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(len(POINTER))
            check_fetched(path, head)
            length = int.from_bytes(head[:8], "little")
            if size < 8 or not 2 <= length <= min(size - 8, LONGEST_HEADER):
                raise FlowjaxError(
                    f"{path}: its header is damaged or cut off ({size} bytes in all); "
                    "fetch the file again"
                )
            file.seek(8)
            text = file.read(length)
    except FileNotFoundError:
        raise FlowjaxError(f"{path} is missing; fetch the checkpoint again") from None
    except OSError as error:
        raise FlowjaxError(f"{path}: not readable: {error.strerror}") from error
    try:
        fields = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise FlowjaxError(f"{path}: bad safetensors header: {error}") from error
    if not isinstance(fields, dict):
        raise FlowjaxError(f"{path}: bad safetensors header: not a JSON object")
    fields.pop("__metadata__", None)
    headers = {}
    for key, value in fields.items():
        try:
            headers[key] = _header(path, 8 + length, value)
        except (ValueError, KeyError, TypeError) as error:
            raise FlowjaxError(f"{path}: bad safetensors header: key {key}: {error}") from error
    _check_coverage(path, headers, 8 + length, size)
    return headers


class SafetensorsFile:
    """The tensors of one file, mapped into memory: pages are read when touched and not copied."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def tensor(self, header: TensorHeader) -> Shaped[np.ndarray, "..."]:
        """A read-only view of one tensor."""
        dtype = READABLE[header.dtype]
        count = math.prod(header.shape)
        return np.frombuffer(self._map, dtype, count, header.start).reshape(header.shape)

    def release(self, header: TensorHeader) -> None:
        """Let the system take back the pages that hold one tensor; views of it stay valid."""
        if hasattr(self._map, "madvise"):
            start = header.start // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, start, header.stop - start)


def _header(path: Path, base: int, value: object) -> TensorHeader:
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not an object")
    start, stop = value["data_offsets"]
    dtype, shape = value["dtype"], value["shape"]
    numbers = [start, stop, *shape]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"offsets or shape are not whole numbers: {value}")
    if dtype in ITEM_BYTES and stop - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError(f"{stop - start} bytes for {dtype} {shape}")
    return TensorHeader(path, str(dtype), tuple(shape), base + start, base + stop)


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice} occurs twice")
    return fields


def _check_coverage(path: Path, headers: Mapping[str, TensorHeader], base: int, size: int) -> None:
    """Tensors lie one after the other and fill the file."""
    end = base
    for key, header in sorted(headers.items(), key=lambda item: (item[1].start, item[1].stop)):
        if header.start != end:
            raise FlowjaxError(f"{path}: bad safetensors header: gap or overlap before {key}")
        end = header.stop
    if size < end:
        raise FlowjaxError(f"{path} is truncated: {size} bytes of {end}; fetch the file again")
    if size > end:
        raise FlowjaxError(
            f"{path} has {size - end} bytes after its last tensor; fetch the file again"
        )
