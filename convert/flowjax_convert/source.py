"""A Hugging Face checkpoint directory as memory-mapped tensors and side files."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax_convert.safetensors_file import READABLE, SafetensorsFile, TensorHeader, read_headers

INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
NOT_WEIGHTS = {"training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt"}
NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors")
RESAVE = (
    "pickle files can run code when they are read, so flowjax reads only safetensors; re-save the "
    'model with transformers: model.save_pretrained("NEW_DIR", safe_serialization=True)'
)


@runtime_checkable
class Source(Protocol):
    """Tensors by key: what the rest of the conversion needs to know of a checkpoint.

    A LoRA adapter is a source that wraps another and adds its deltas in `tensor`.
    """

    @property
    def headers(self) -> Mapping[str, TensorHeader]:
        """Dtype and shape of every tensor."""
        ...

    def tensor(self, key: str) -> Shaped[np.ndarray, "..."]:
        """The tensor's values, a view where possible."""
        ...

    def release(self, key: str) -> None:
        """Give back memory that holds the tensor's values, which will not be needed soon."""
        ...


@dataclass(frozen=True)
class SafetensorsSource:
    """The tensors of one checkpoint directory, checked by `open_source`."""

    path: Path
    headers: Mapping[str, TensorHeader]
    _files: dict[Path, SafetensorsFile] = field(default_factory=dict, repr=False)

    def tensor(self, key: str) -> Shaped[np.ndarray, "..."]:
        """A read-only view of one tensor; nothing is read until it is used."""
        header = self.headers[key]
        if header.path not in self._files:
            self._files[header.path] = SafetensorsFile(header.path)
        return self._files[header.path].tensor(header)

    def release(self, key: str) -> None:
        """Unmap the tensor's pages; touching a view of it maps them anew."""
        header = self.headers[key]
        if header.path in self._files:
            self._files[header.path].release(header)


def open_source(directory: Path) -> SafetensorsSource:
    """Read and check the headers of all weights in a checkpoint directory.

    Raises:
        FlowjaxError: no safetensors, a shard that is missing, truncated, damaged or not in the
            index, a key twice, or an index that does not agree with the shards.
    """
    index = directory / INDEX
    indexed = read_index(index) if index.is_file() else None
    names = shard_names(directory, None if indexed is None else set(indexed.values()))
    headers: dict[str, TensorHeader] = {}
    for name in names:
        for key, header in read_headers(directory / name).items():
            if key in headers:
                raise FlowjaxError(
                    f"{directory}: key {key} is in both {headers[key].path.name} and {name}"
                )
            headers[key] = header
    for key, name in (indexed or {}).items():
        if key not in headers:
            raise FlowjaxError(f"{directory / name}: key {key} is missing, but {INDEX} names it")
        if headers[key].path.name != name:
            raise FlowjaxError(
                f"{directory}: key {key} is in {headers[key].path.name}, but {INDEX} says {name}"
            )
    for key, header in headers.items():
        if indexed is not None and key not in indexed:
            raise FlowjaxError(f"{header.path}: key {key} is not in {INDEX}")
    return SafetensorsSource(directory, headers)


def read_index(path: Path) -> dict[str, str]:
    """File name by key, from `model.safetensors.index.json`.

    Raises:
        FlowjaxError: not an index, or it names a file outside its directory.
    """
    weights = read_json(path).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise FlowjaxError(f"{path}: weight_map must map keys to file names")
    for key, name in weights.items():
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise FlowjaxError(f"{path}: weight_map of {key} is {name!r}; it must be a file name")
    return weights


def shard_names(directory: Path, indexed: Iterable[str] | None) -> list[str]:
    """Names of the files that hold the weights, sorted.

    Raises:
        FlowjaxError: there are none, one is missing, or there is one that the index does not name.
    """
    found = (path.name for path in directory.glob("*.safetensors"))
    present = {name for name in found if not name.startswith(".")}  # as macOS leaves them
    if indexed is not None:
        for name in sorted(set(indexed) - present):
            raise FlowjaxError(
                f"{directory / name} is missing, but {INDEX} names it; fetch the checkpoint again"
            )
        for name in sorted(present - set(indexed)):
            raise FlowjaxError(f"{directory / name} is not named by {INDEX}; remove one of the two")
        return sorted(present)
    if not present:
        pickles = {path.name for pattern in PICKLES for path in directory.glob(pattern)}
        raise no_safetensors(str(directory), pickles)
    _check_numbered(directory, present)
    return sorted(present)


def no_safetensors(where: str, names: Iterable[str]) -> FlowjaxError:
    """The error for a checkpoint `where` without safetensors that has the files `names`."""
    pickles = sorted(
        name
        for name in names
        if name not in NOT_WEIGHTS and any(Path(name).match(pattern) for pattern in PICKLES)
    )
    if pickles:
        return FlowjaxError(f"{where}: the weights are in {pickles[0]}; {RESAVE}")
    return FlowjaxError(f"{where}: no *.safetensors file; a checkpoint's weights are expected")


def _check_numbered(directory: Path, present: set[str]) -> None:
    """`model-00001-of-00003.safetensors` and the like must be complete."""
    series: dict[tuple[str, str], set[int]] = defaultdict(set)
    for name in present:
        if match := NUMBERED.fullmatch(name):
            series[match[1], match[3]].add(int(match[2]))
    for (stem, total), numbers in sorted(series.items()):
        for number in sorted(set(range(1, int(total) + 1)) - numbers):
            missing = directory / f"{stem}-{number:0{len(total)}}-of-{total}.safetensors"
            raise FlowjaxError(f"{missing} is missing; fetch the checkpoint again")


def check_readable(header: TensorHeader, key: str) -> np.dtype:
    """The numpy dtype of a weight.

    Raises:
        FlowjaxError: it is of a dtype that holds no plain weights, such as a quantised one.
    """
    if header.dtype not in READABLE:
        raise FlowjaxError(
            f"{header.path}: key {key} has dtype {header.dtype}; flowjax reads "
            f"{', '.join(READABLE)}, not quantised or other weights"
        )
    return READABLE[header.dtype]
