"""Typed tables that say which checkpoint tensor fills which parameter."""

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from flowjax.errors import FlowjaxError
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.submodules import submodules

LAYER = "{layer}"
"""In a key pattern: the number of a layer."""

Arrange = Callable[[Shaped[np.ndarray, "..."]], Shaped[np.ndarray, "..."]]
"""Rearranges the axes of a tensor without copying it."""


def as_is(tensor: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """The same array: norms, biases, embeddings."""
    return tensor


def transposed(
    tensor: Shaped[np.ndarray, "outputs inputs"],
) -> Shaped[np.ndarray, "inputs outputs"]:
    """A PyTorch linear weight as a Flax kernel."""
    _check_axes(tensor, 2)
    return tensor.T


def patches(
    tensor: Shaped[np.ndarray, "width channels rows columns"],
) -> Shaped[np.ndarray, "inputs width"]:
    """A convolution over patches as a kernel on flattened (channel, row, column) patches."""
    _check_axes(tensor, 4)
    return tensor.reshape(len(tensor), -1).T


def single(tensor: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """The only entry of the first axis, such as position embeddings stored as [1, n, width]."""
    if tensor.ndim < 2 or len(tensor) != 1:
        raise ValueError("a first axis of one entry is expected")
    return tensor[0]


def flat(tensor: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, " n"]:
    """The only row, such as a class token stored as [1, 1, width]."""
    _check_axes(tensor, 3)
    return single(single(tensor))


@dataclass(frozen=True)
class Rule:
    """One tensor, or one per layer, that fills one parameter.

    source: key of the tensor; with `{layer}`, one tensor per layer, stacked on a leading axis.
    target: path of the parameter.
    arrange: how the tensor's axes become the parameter's.
    rows: `[start, stop)` of the tensor's first axis, for a tensor that several parameters share
        (a fused projection); the rules with one source must cover its rows exactly once.
    groups: equal parts of the tensor's first axis, in each of which the rule takes its `rows`.
    layers: tensors in the checkpoint where it has more layers than the module; those beyond are
        checked like the others and then ignored, because of `surplus`.
    """

    source: str
    target: str
    arrange: Arrange = as_is
    rows: tuple[int, int] | None = None
    layers: int | None = None
    surplus: str = ""
    groups: int = 1


@dataclass(frozen=True)
class Ignored:
    """Tensors of the checkpoint that no parameter needs.

    source: their key; with `{layer}`, any layer's.
    reason: why the computation does not read them.
    shape: required of them, where known.
    required: whether a checkpoint without them is damaged.
    """

    source: str
    reason: str
    shape: tuple[int, ...] | None = None
    required: bool = False


@dataclass(frozen=True)
class Tied:
    """A tensor that must equal another one where the checkpoint has it (tied embeddings)."""

    source: str
    same_as: str


@dataclass(frozen=True)
class Spelling:
    """Another beginning that the keys beginning with `usual` have in some checkpoints."""

    usual: str
    other: str


@dataclass(frozen=True)
class TensorTable:
    """Everything that a family's checkpoint may hold.

    absent: by the beginning of keys, what to do where they are missing.
    """

    rules: tuple[Rule, ...]
    ignored: tuple[Ignored, ...] = ()
    tied: tuple[Tied, ...] = ()
    spellings: tuple[Spelling, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)

    def spelled_as(self, keys: Collection[str]) -> "TensorTable":
        """The table with the spellings that are found in `keys`."""
        found = [
            spelling
            for spelling in self.spellings
            if any(key.startswith(spelling.other) for key in keys)
        ]

        def spelled(key: str) -> str:
            for spelling in found:
                if key.startswith(spelling.usual):
                    return spelling.other + key.removeprefix(spelling.usual)
            return key

        return TensorTable(
            tuple(replace(rule, source=spelled(rule.source)) for rule in self.rules),
            tuple(replace(rule, source=spelled(rule.source)) for rule in self.ignored),
            tuple(Tied(spelled(tied.source), spelled(tied.same_as)) for tied in self.tied),
            absent=self.absent,
        )


TableOf = Callable[[VideoLLMConfig, Mapping[str, Any]], TensorTable]
"""The table of one model, from its configuration and the fields of its `config.json`."""


def table_of(config: VideoLLMConfig, fields: Mapping[str, Any]) -> TensorTable:
    """The tensor table of a model, from the module of its family in `flowjax_convert.families`.

    Raises:
        FlowjaxError: the family cannot be converted.
    """
    tables = family_tables()
    if config.family not in tables:
        raise FlowjaxError(
            f"family {config.family!r} cannot be converted; {', '.join(sorted(tables))} can"
        )
    return tables[config.family](config, fields)


def family_tables() -> dict[str, TableOf]:
    """The tables of all families, by family name."""
    package: ModuleType = importlib.import_module("flowjax_convert.families")
    return {name: module.tensor_table for name, module in submodules(package).items()}


def deep_patches(
    tensor: Shaped[np.ndarray, "width channels frames rows columns"],
) -> Shaped[np.ndarray, "inputs width"]:
    """A convolution over patches of several frames as a kernel on flattened patches."""
    _check_axes(tensor, 5)
    return tensor.reshape(len(tensor), -1).T


def _check_axes(tensor: np.ndarray, axes: int) -> None:
    if tensor.ndim != axes:
        raise ValueError(f"{axes} axes are expected")
