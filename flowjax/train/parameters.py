"""Trees of parameters: those that are trained and those that stay, by their paths."""

from collections.abc import Collection
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict

from flowjax.errors import FlowjaxError

Parameters = Any
"""A pytree of arrays: dictionaries in dictionaries."""


def flat(parameters: Parameters) -> dict[tuple[str, ...], Any]:
    """The leaves of a tree by their keys."""
    leaves: dict[tuple[str, ...], Any] = flatten_dict(parameters)
    return leaves


def by_path(parameters: Parameters) -> dict[str, Any]:
    """The leaves of a tree by their paths, such as `decoder/norm/scale`."""
    return {"/".join(map(str, keys)): leaf for keys, leaf in flat(parameters).items()}


class Parts(NamedTuple):
    """A tree in two, each without the leaves of the other."""

    trained: Parameters
    held: Parameters


def divide(parameters: Parameters, frozen: Collection[str]) -> Parts:
    """What is trained, and what stays.

    Args:
        parameters: all of them.
        frozen: beginnings of paths, such as `vision` or `decoder/embedding`, of what stays.

    Raises:
        FlowjaxError: no parameter is under such a name, or none is left to train.
    """
    leaves = flat(parameters)
    paths = {keys: "/".join(map(str, keys)) for keys in leaves}
    for name in frozen:
        if not any(is_under(path, name) for path in paths.values()):
            first = sorted({path.split("/")[0] for path in paths.values()})
            raise FlowjaxError(
                f"frozen {name!r}: no parameter is under it; the parts are {', '.join(first)}"
            )
    held = {keys for keys, path in paths.items() if any(is_under(path, name) for name in frozen)}
    if len(held) == len(leaves):
        raise FlowjaxError(f"frozen {', '.join(frozen)}: nothing is left to train")
    return Parts(
        unflatten_dict({keys: leaf for keys, leaf in leaves.items() if keys not in held}),
        unflatten_dict({keys: leaf for keys, leaf in leaves.items() if keys in held}),
    )


def together(parts: Parts) -> Parameters:
    """The whole tree again."""
    return unflatten_dict(flat(parts.trained) | flat(parts.held))


def is_under(path: str, name: str) -> bool:
    """Whether a path begins with a name, whole parts of it."""
    return path == name or path.startswith(f"{name}/")
