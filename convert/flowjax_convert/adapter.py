"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) merged into the weights of their base model.

The merged weight is W + scaling * B A, computed in float32 and rounded once to the dtype that is
written: what PEFT's `merge_and_unload` computes.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from flowjax.errors import FlowjaxError
from flowjax_convert.adapter_config import AdapterConfig, read_adapter_config
from flowjax_convert.mapping import Spelling
from flowjax_convert.safetensors_file import READABLE, SafetensorsFile, TensorHeader, read_headers
from flowjax_convert.source import RESAVE, Source, check_readable

WEIGHTS = "adapter_model.safetensors"
KEY = re.compile(r"base_model\.model\.(.+?)(\.lora_A|\.lora_B|\.base_layer|)\.weight")
DOWN, UP = ".lora_A", ".lora_B"


@dataclass(frozen=True)
class Delta:
    """What is added to one weight: headers of A [rank, inputs] and B [outputs, rank]."""

    down: TensorHeader
    up: TensorHeader
    scaling: float


@dataclass(frozen=True)
class Change:
    """What an adapter does to one weight.

    whole: header of a weight that goes in its place: PEFT saves whole vocabulary projections and
        embeddings beside their deltas, because they may have been resized.
    delta: added to it; None for nothing.
    """

    whole: TensorHeader | None
    delta: Delta | None


class AdaptedSource:
    """A checkpoint whose tensors come with an adapter's changes."""

    def __init__(self, base: Source, file: SafetensorsFile, changes: Mapping[str, Change]) -> None:
        self._base, self._file, self._changes = base, file, changes

    @property
    def headers(self) -> Mapping[str, TensorHeader]:
        """Those of the base: shapes and dtypes stay."""
        return self._base.headers

    def tensor(self, key: str) -> Shaped[np.ndarray, "..."]:
        """The base's tensor, or the merged weight in float32, to be cast by the reader."""
        change = self._changes.get(key)
        if change is None:
            return self._base.tensor(key)
        weight = self._base.tensor(key) if change.whole is None else self._file.tensor(change.whole)
        delta = change.delta
        if delta is None:
            return weight.astype(READABLE[self.headers[key].dtype], copy=False)
        down, up = (
            self._file.tensor(header).astype(np.float32) for header in (delta.down, delta.up)
        )
        merged = up @ down
        merged *= np.float32(delta.scaling)
        merged += weight
        return merged

    def release(self, key: str) -> None:
        """Give back the base's memory."""
        self._base.release(key)


def adapted(base: Source, directory: Path, spellings: Iterable[Spelling]) -> AdaptedSource:
    """The checkpoint `base` with the adapter in `directory` merged into it.

    Args:
        base: the base model's checkpoint.
        directory: holds `adapter_config.json` and `adapter_model.safetensors`.
        spellings: of the family's keys; the adapter may use another one than the checkpoint.

    Raises:
        FlowjaxError: the adapter is not a plain LoRA adapter, is damaged, or does not fit `base`.
    """
    config = read_adapter_config(directory)
    path = directory / WEIGHTS
    if not path.is_file() and (directory / "adapter_model.bin").is_file():
        raise FlowjaxError(f"{directory}: the weights are in adapter_model.bin; {RESAVE}")
    modules = _modules(path, read_headers(path))
    changes: dict[str, Change] = {}
    for module, parts in modules.items():
        key = _key_in(base, f"{module}.weight", tuple(spellings), path)
        if key in changes:
            raise FlowjaxError(f"{path}: two modules are for key {key} of the base model")
        changes[key] = _change(config, module, parts, base.headers[key], key)
    return AdaptedSource(base, SafetensorsFile(path), changes)


def _modules(path: Path, headers: Mapping[str, TensorHeader]) -> dict[str, dict[str, TensorHeader]]:
    """Headers by module and by what its key has before `.weight`."""
    modules: dict[str, dict[str, TensorHeader]] = {}
    for key, header in headers.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise FlowjaxError(
                f"{path}: key {key} is unknown; only lora_A and lora_B of linear layers are merged"
            )
        check_readable(header, key)
        modules.setdefault(match[1], {})[match[2]] = header
    for module, parts in modules.items():
        for part, other in ((DOWN, UP), (UP, DOWN)):
            if part not in parts and other in parts:
                raise FlowjaxError(f"{path}: key base_model.model.{module}{part}.weight is missing")
    if not any(UP in parts for parts in modules.values()):
        raise FlowjaxError(f"{path}: it has no lora_B; there is nothing to merge")
    return modules


def _key_in(base: Source, key: str, spellings: tuple[Spelling, ...], path: Path) -> str:
    """The key of the base's checkpoint that `key` names in some spelling."""
    if key in base.headers:
        return key
    found = {
        other + key.removeprefix(own)
        for usual in {spelling.usual for spelling in spellings}
        for own in _spelled(usual, spellings)
        for other in _spelled(usual, spellings)
        if key.startswith(own)
    } & base.headers.keys()
    if len(found) != 1:
        raise FlowjaxError(
            f"{path}: the base model has no weight {key}; the adapter belongs to another model"
        )
    return found.pop()


def _spelled(usual: str, spellings: Iterable[Spelling]) -> set[str]:
    return {usual, *(spelling.other for spelling in spellings if spelling.usual == usual)}


def _change(
    config: AdapterConfig,
    module: str,
    parts: Mapping[str, TensorHeader],
    weight: TensorHeader,
    key: str,
) -> Change:
    rank = config.rank_of(module)
    expected = {DOWN: (rank, *weight.shape[1:]), UP: (*weight.shape[:1], rank)}
    for part, header in parts.items():
        fits = header.shape == expected.get(part, weight.shape)
        if not fits or (part in expected and len(weight.shape) != 2):
            raise FlowjaxError(
                f"{header.path}: key base_model.model.{module}{part}.weight has shape "
                f"{list(header.shape)}, which does not fit rank {rank} and {key} of shape "
                f"{list(weight.shape)}"
            )
    whole = [parts[part] for part in parts if part not in expected]
    if len(whole) > 1:
        raise FlowjaxError(f"{whole[0].path}: module {module} has two whole weights")
    return Change(
        whole[0] if whole else None,
        Delta(parts[DOWN], parts[UP], config.scaling(module)) if UP in parts else None,
    )
