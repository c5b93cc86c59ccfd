"""Bringing parameters together where they are used that are divided over `data` where they lie.

Left to itself, the partitioner may divide what a layer computes as its weights are divided, so that
every device computes a part of it for the examples of all: its work then grows with the devices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh

from flowjax.mesh import DATA
from flowjax.models.sharding import parameter_sharding
from flowjax.models.stack import AT_USE
from flowjax.models.video_llm import VideoLLM
from flowjax.train.parameters import Parameters, is_under

Gather = Callable[[Parameters], Parameters]


@dataclass(frozen=True)
class Gathered:
    """Parameters where they are used: divided over `model` as in inference, whole over `data`.

    within: the path that theirs are counted from; empty for the model itself.
    kv_heads: of the decoder.
    but: beginnings of the paths of those that stay as they are.
    """

    mesh: Mesh | AbstractMesh
    within: str
    kv_heads: int
    but: tuple[str, ...] = ()

    def __call__(self, parameters: Any) -> Any:  # noqa: ANN401 - a tree, or a module's state
        """The same values."""
        return jax.tree.map_with_path(self._one, parameters)

    def _one(self, path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        keys = (entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey))
        name = "/".join(filter(None, (self.within, *map(str, keys))))
        if any(is_under(name, stays) for stays in self.but):
            return leaf
        lies = parameter_sharding(name, leaf.shape, self.mesh, kv_heads=self.kv_heads)
        return jax.lax.with_sharding_constraint(leaf, lies)


def gather_in(model: VideoLLM, mesh: Mesh | AbstractMesh) -> Gather:
    """Have every stack of a model gather a layer where it is computed.

    Returns:
        What gathers all other parameters. Where `data` has one device, nothing is divided over it,
        and nothing is done.
    """
    if mesh.shape[DATA] == 1:
        return lambda parameters: parameters
    heads, stacks = model.config.decoder.kv_heads, list[str]()
    for path, module in sorted(nnx.iter_modules(model), key=lambda found: len(found[0])):
        name = "/".join(map(str, path))
        inside = any(is_under(name, stack) for stack in stacks)  # LoRA's
        if hasattr(module, AT_USE) and not inside:
            setattr(module, AT_USE, Gathered(mesh, name, heads))
            stacks.append(name)
    return Gathered(mesh, "", heads, tuple(stacks))
