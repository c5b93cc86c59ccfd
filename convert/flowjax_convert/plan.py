"""From headers alone: which tensor fills which parameter, or why the checkpoint is refused."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from flowjax.errors import FlowjaxError
from flowjax_convert.mapping import LAYER, Rule, TensorTable
from flowjax_convert.safetensors_file import TensorHeader
from flowjax_convert.source import Source, check_readable


@dataclass(frozen=True)
class Parameter:
    """One parameter and the tensors that fill it.

    path, shape, dtype: of the parameter.
    rule: how a tensor is rearranged.
    keys: one key, or one per layer for a stacked parameter.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    rule: Rule
    keys: tuple[str, ...]

    @property
    def stacked(self) -> bool:
        """Whether the leading axis counts layers."""
        return LAYER in self.rule.source

    def values(self, source: Source, index: int) -> Shaped[np.ndarray, "..."]:
        """The part of the parameter that comes from `keys[index]`, in the dtype of the source."""
        return arranged(self.rule, source.tensor(self.keys[index]))


@dataclass(frozen=True)
class Plan:
    """A conversion that has been checked.

    ignored: reason by key, for every key that fills no parameter.
    """

    parameters: tuple[Parameter, ...]
    ignored: Mapping[str, str]

    @property
    def count(self) -> int:
        """Number of parameters (scalars)."""
        return sum(int(np.prod(parameter.shape)) for parameter in self.parameters)

    @property
    def bytes(self) -> int:
        """Bytes of all parameters as they will be written."""
        return sum(
            int(np.prod(parameter.shape)) * parameter.dtype.itemsize
            for parameter in self.parameters
        )


def make_plan(
    source: Source,
    table: TensorTable,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: np.dtype | None,
) -> Plan:
    """Match every tensor with a parameter or a reason to ignore it, and every parameter.

    Args:
        source: the checkpoint.
        table: what its family's checkpoints hold.
        shapes: of all parameters of the module.
        dtype: of all parameters; None keeps that of their tensors.

    Raises:
        FlowjaxError: names a key that is missing, unknown or of the wrong shape or dtype.
    """
    headers = source.headers
    table = table.spelled_as(headers)
    for rule in table.rules:
        if rule.target not in shapes:
            raise FlowjaxError(f"rule {rule.source}: the model has no parameter {rule.target}")
    keys = [_keys(rule, shapes[rule.target]) for rule in table.rules]
    ignored = _check_keys(headers, table, keys)
    parameters = []
    for rule, of_rule in zip(table.rules, keys, strict=True):
        _check_shapes(rule, headers, of_rule, shapes[rule.target])
        own = _dtype(headers, of_rule.used, mixed=dtype is not None)
        parameters.append(
            Parameter(rule.target, shapes[rule.target], dtype or own, rule, of_rule.used)
        )
    _check_targets(parameters, shapes)
    _check_rows(table.rules, keys, headers)
    _check_tied(source, table)
    return Plan(tuple(parameters), ignored)


@dataclass(frozen=True)
class _Keys:
    """Keys of one rule: those that fill the parameter, and those beyond its layers."""

    used: tuple[str, ...]
    surplus: tuple[str, ...] = ()


def _keys(rule: Rule, shape: tuple[int, ...]) -> _Keys:
    if LAYER not in rule.source:
        return _Keys((rule.source,))
    used, total = shape[0], shape[0] if rule.layers is None else rule.layers
    keys = tuple(rule.source.replace(LAYER, str(layer)) for layer in range(total))
    return _Keys(keys[:used], keys[used:])


def arranged(rule: Rule, tensor: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """What `rule` makes of a tensor; a view, unless rows of several groups are put together."""
    if rule.rows is None:
        return rule.arrange(tensor)
    if rule.groups == 1:
        return rule.arrange(tensor[slice(*rule.rows)])
    grouped = tensor.reshape(rule.groups, -1, *tensor.shape[1:])[:, slice(*rule.rows)]
    return rule.arrange(grouped.reshape(-1, *tensor.shape[1:]))


def _check_shapes(
    rule: Rule, headers: Mapping[str, TensorHeader], keys: _Keys, shape: tuple[int, ...]
) -> None:
    expected = shape[1:] if LAYER in rule.source else shape
    for key in keys.used + keys.surplus:
        header = headers[key]
        stand_in = np.broadcast_to(np.zeros((), np.uint8), header.shape)
        try:
            found = list(arranged(rule, stand_in).shape)
        except ValueError as error:
            found = str(error)
        if found != list(expected):
            raise FlowjaxError(
                f"{header.path}: key {key} has shape {list(header.shape)}, which does not fit "
                f"{rule.target} of shape {list(expected)}"
            )


def _dtype(headers: Mapping[str, TensorHeader], keys: Sequence[str], *, mixed: bool) -> np.dtype:
    """The dtype of the tensors of a stacked parameter; only if `mixed` may they have several."""
    first, *others = [check_readable(headers[key], key) for key in keys]
    for key, dtype in zip(keys[1:], others, strict=True):
        if dtype != first and not mixed:
            raise FlowjaxError(
                f"{headers[key].path}: key {key} has dtype {headers[key].dtype}, but {keys[0]} has "
                f"{headers[keys[0]].dtype}; layers are stored together, so choose with --dtype"
            )
    return first


def _check_targets(parameters: Sequence[Parameter], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Every parameter is filled once."""
    paths = [parameter.path for parameter in parameters]
    for path in shapes:
        if paths.count(path) != 1:
            raise FlowjaxError(f"parameter {path} is filled by {paths.count(path)} rules, not one")


def _check_rows(
    rules: Sequence[Rule], keys: Sequence[_Keys], headers: Mapping[str, TensorHeader]
) -> None:
    """The rules that share a tensor cover its rows, of every group alike, exactly once."""
    parts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    groups: dict[str, int] = {}
    for rule, of_rule in zip(rules, keys, strict=True):
        for key in of_rule.used + of_rule.surplus:
            parts[key].append(rule.rows or (0, _rows(headers[key])))
            groups[key] = rule.groups
    for key, ranges in parts.items():
        ranges.sort()
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        rows = _rows(headers[key]) / groups[key]
        if starts != [0, *stops[:-1]] or stops[-1] != rows:
            each = f" in {groups[key]} groups" if groups[key] > 1 else ""
            raise FlowjaxError(
                f"{headers[key].path}: key {key} has {_rows(headers[key])} rows{each}; the rules "
                f"for it take {', '.join(f'{start} to {stop}' for start, stop in ranges)}"
            )


def _rows(header: TensorHeader) -> int:
    return header.shape[0] if header.shape else 1


def _check_keys(
    headers: Mapping[str, TensorHeader], table: TensorTable, keys: Sequence[_Keys]
) -> dict[str, str]:
    """Refuse a missing or unknown key; the reason to ignore every key that fills no parameter."""
    reasons: dict[str, str] = {}
    used = {key for of_rule in keys for key in of_rule.used}
    needed = dict.fromkeys(key for of_rule in keys for key in of_rule.used + of_rule.surplus)
    needed |= dict.fromkeys(rule.source for rule in table.ignored if rule.required)
    for rule, of_rule in zip(table.rules, keys, strict=True):
        reasons |= dict.fromkeys(of_rule.surplus, rule.surplus)
    reasons |= {tied.source: f"equal to {tied.same_as}" for tied in table.tied}
    patterns = [(key_pattern(rule.source), rule) for rule in table.ignored]
    for key, header in headers.items():
        rule = next((rule for pattern, rule in patterns if pattern.fullmatch(key)), None)
        if rule is not None:
            reasons[key] = rule.reason
            if rule.shape is not None and header.shape != rule.shape:
                raise FlowjaxError(
                    f"{header.path}: key {key} has shape {list(header.shape)}; "
                    f"{list(rule.shape)} is expected"
                )
    unknown = sorted(headers.keys() - used - reasons.keys())
    for key in needed:
        if key not in headers:
            advice = (text for start, text in table.absent.items() if key.startswith(start))
            raise FlowjaxError(
                f"key {key} is missing from the checkpoint"
                + (f"; it has {unknown[0]} instead, which is unknown" if unknown else "")
                + "".join(f"; {text}" for text in advice)
            )
    if unknown:
        raise FlowjaxError(
            f"{headers[unknown[0]].path}: key {unknown[0]} is unknown; nothing in the model would "
            "use it"
        )
    return {key: reason for key, reason in reasons.items() if key in headers}


def _check_tied(source: Source, table: TensorTable) -> None:
    """Tensors that repeat another one must be equal bit by bit."""
    for tied in table.tied:
        if tied.source not in source.headers:
            continue
        header, other = source.headers[tied.source], source.headers[tied.same_as]
        check_readable(header, tied.source)
        same = (header.shape, header.dtype) == (other.shape, other.dtype) and np.array_equal(
            source.tensor(tied.source).view(np.uint8), source.tensor(tied.same_as).view(np.uint8)
        )
        if not same:
            raise FlowjaxError(
                f"{header.path}: key {tied.source} differs from {tied.same_as}, although "
                "config.json ties them (tie_word_embeddings)"
            )


def key_pattern(source: str) -> re.Pattern[str]:
    """Keys that a rule's source names, with any number for its layer."""
    return re.compile(re.escape(source).replace(re.escape(LAYER), r"\d+"))
