"""A family's tensor table read backwards: the tensors of a checkpoint, from parameters."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from flowjax.errors import FlowjaxError
from flowjax.models.video_llm import VideoLLMConfig
from flowjax_convert.mapping import (
    LAYER,
    Arrange,
    Ignored,
    Rule,
    TensorTable,
    as_is,
    deep_patches,
    flat,
    patches,
    single,
    transposed,
)
from flowjax_convert.plan import arranged, key_pattern
from flowjax_convert.safetensors_file import READABLE
from flowjax_convert.source import Source

Tensor = Shaped[np.ndarray, "..."]

Part = Callable[[str, int | None], Tensor]
"""A parameter by its path; with a number, that layer of it."""

SAME: Mapping[Arrange, Callable[[Tensor], Tensor]] = {
    as_is: lambda part: part,
    transposed: lambda part: part.T,
    single: lambda part: part[None],
    flat: lambda part: part[None, None],
}


@dataclass(frozen=True)
class Written:
    """One tensor of a checkpoint that is to be written.

    bytes: that it takes.
    make: its values; read when they are wanted.
    """

    key: str
    bytes: int
    make: Callable[[], Tensor]


@dataclass(frozen=True)
class Inverse:
    """What it takes to write a model back.

    table: of its family.
    config: of the model.
    shapes: of all parameters.
    dtype: of the tensors that no parameter fills.
    itemsize: bytes of one value of each parameter.
    like: the checkpoint that the model was made from, or None.
    """

    table: TensorTable
    config: VideoLLMConfig
    shapes: Mapping[str, tuple[int, ...]]
    dtype: np.dtype
    itemsize: Mapping[str, int]
    like: Source | None = None

    def tensors(self, part: Part) -> Iterator[Written]:
        """Every tensor of the checkpoint, in the spelling of `like` or else the table's own.

        What a checkpoint must have and no computation reads comes from `like`, or is ones (weights)
        and zeros.

        Raises:
            FlowjaxError: a tensor that the model does not hold, of layers after the feature layer,
                and there is no `like`; or one that cannot be made of parameters.
        """
        table = self.table if self.like is None else self.table.spelled_as(self.like.headers)
        together: dict[str, list[Rule]] = {}
        for rule in table.rules:
            together.setdefault(rule.source, []).append(rule)
        for source, rules in together.items():
            first = rules[0]
            if LAYER not in source:
                yield self._written(source, rules, None, part)
                continue
            held = self.shapes[first.target][0]
            for layer in range(held):
                yield self._written(source.replace(LAYER, str(layer)), rules, layer, part)
            for layer in range(held, held if first.layers is None else first.layers):
                yield self._copied(source.replace(LAYER, str(layer)), first, held)
        if self.like is not None:
            for tied in table.tied:
                if tied.source in self.like.headers:
                    rules = together[tied.same_as]
                    yield self._written(tied.source, rules, None, part)
        yield from self._unread(table)

    def _written(self, key: str, rules: Sequence[Rule], layer: int | None, part: Part) -> Written:
        sizes = [
            math.prod(self.shapes[rule.target][layer is not None :]) * self.itemsize[rule.target]
            for rule in rules
        ]
        return Written(key, sum(sizes), lambda: self._joined(rules, layer, part))

    def _joined(self, rules: Sequence[Rule], layer: int | None, part: Part) -> Tensor:
        """One tensor from the parameters that share its rows."""
        ordered = sorted(rules, key=lambda rule: rule.rows or (0, 0))
        parts = [self._back(rule, part(rule.target, layer)) for rule in ordered]
        if len(parts) == 1:
            return parts[0]
        groups = ordered[0].groups
        split = [one.reshape(groups, -1, *one.shape[1:]) for one in parts]
        joined = np.concatenate(split, axis=1)
        return joined.reshape(-1, *joined.shape[2:])

    def _back(self, rule: Rule, part: Tensor) -> Tensor:
        if rule.arrange in SAME:
            return SAME[rule.arrange](part)
        if rule.arrange not in (patches, deep_patches):
            raise FlowjaxError(f"{rule.source} cannot be written back from {rule.target}")
        tensor = part.T.reshape(part.shape[1], *self._window(rule, *part.shape))
        assert np.array_equal(arranged(rule, tensor[:1]), part[:, :1])
        return tensor

    def _window(self, rule: Rule, inputs: int, outputs: int) -> tuple[int, ...]:
        """Channels, frames, rows and columns of a convolution's window."""
        if rule.target == "projector/pool/kernel":
            side = math.isqrt(inputs // outputs)
            return (outputs, side, side)
        vision = self.config.vision
        side = getattr(vision, "patch_size")  # noqa: B009 - every vision encoder has it
        if rule.arrange is patches:
            return (inputs // side**2, side, side)
        frames = getattr(vision, "frames_per_patch")  # noqa: B009 - of those with deep patches
        return (inputs // (frames * side**2), frames, side, side)

    def _copied(self, key: str, rule: Rule, held: int) -> Written:
        if self.like is None:
            raise FlowjaxError(
                f"{rule.source} has {rule.layers} layers in the checkpoint, of which the model "
                f"holds {held}; give --like, the checkpoint that it was made from"
            )
        like = self.like
        header = like.headers.get(key)
        if header is None:
            raise FlowjaxError(f"--like has no key {key}; give the checkpoint of this model")
        size = math.prod(header.shape) * self.dtype.itemsize
        return Written(key, size, lambda: like.tensor(key).astype(self.dtype))

    def _unread(self, table: TensorTable) -> Iterator[Written]:
        if self.like is not None:
            like, patterns = self.like, [key_pattern(one.source) for one in table.ignored]
            for key, header in like.headers.items():
                if any(pattern.fullmatch(key) for pattern in patterns):
                    size = math.prod(header.shape) * READABLE[header.dtype].itemsize
                    yield Written(key, size, lambda key=key: like.tensor(key))
            return
        for unread in table.ignored:
            if unread.required:
                assert unread.shape is not None
                size = math.prod(unread.shape) * self.dtype.itemsize
                yield Written(unread.source, size, lambda one=unread: _neutral(one, self.dtype))


def _neutral(unread: Ignored, dtype: np.dtype) -> Tensor:
    assert unread.shape is not None
    value = 1.0 if unread.source.endswith(".weight") else 0.0
    return np.full(unread.shape, value, dtype)
