"""One step of training: gradients of parts of a batch added up over a mesh, and an update.

Where a mesh has several devices on its axis `data`, each computes its own examples. Parameters,
their moments and their gradients lie as a `Layout` says: whole everywhere, divided over `model`
(tensor parallel), over `data` (fully sharded: stage 3 of Rajbhandari et al. 2020, arXiv
1910.02054), or both. XLA brings a layer's weights together where the layer is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flowjax.errors import FlowjaxError
from flowjax.mesh import DATA
from flowjax.train.parameters import Parameters, Parts, together

Batch = TypeVar("Batch")
"""A pytree of arrays whose first axis is examples."""

Examples = Any
"""The same, or parts of it."""


class Sums(NamedTuple):
    """What a loss gives for some examples: sums, so that parts of a batch can be added.

    loss: of the weighted losses. weight: of the weights. metrics: pairs of a sum and the weight
    that its mean is over, by name.
    """

    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, tuple[jax.Array, jax.Array]]


LossOf = Callable[[Parameters, Batch, jax.Array], Sums]
"""The loss of some examples from parameters, examples and a random key."""

Layout = Callable[[str, tuple[int, ...]], PartitionSpec]
"""How the parameter at a path, of some shape, is divided over a mesh."""


def whole(path: str, shape: tuple[int, ...]) -> PartitionSpec:
    """On every device."""
    del path, shape
    return PartitionSpec()


class State(NamedTuple):
    """What a step changes: the trained parameters, in float32, and the optimizer's state."""

    parameters: Parameters
    optimizer: optax.OptState


@dataclass(frozen=True)
class Step:
    """How a step is computed.

    loss_of: differentiable in its first argument.
    micro: examples that a device computes at a time; the gradients are added up.
    mesh: its axis `data` divides the batch.
    layout: of parameters over the mesh, and of what the optimizer keeps of them.
    compute: the dtype that parameters are cast to where they are used; None: their own.
    side_by_side: parameters and batches have a leading axis of runs that do not know of each other.
    """

    loss_of: LossOf
    optimizer: optax.GradientTransformation
    micro: int
    mesh: Mesh
    layout: Layout = whole
    compute: jnp.dtype | None = None
    side_by_side: bool = False

    def parameter_shardings(self, parameters: Parameters) -> Parameters:
        """Where parameters lie."""
        return jax.tree.map_with_path(
            lambda path, leaf: NamedSharding(self.mesh, self.layout(_name(path), leaf.shape)),
            parameters,
        )

    def state_shardings(self, parameters: Parameters) -> State:
        """Where the trained parameters and the optimizer's state lie."""
        shardings = self.parameter_shardings(parameters)
        where = {
            _name(path): (sharding, leaf.shape)
            for (path, sharding), leaf in zip(
                jax.tree.leaves_with_path(shardings), jax.tree.leaves(parameters), strict=True
            )
        }
        nowhere = NamedSharding(self.mesh, PartitionSpec())

        def of(path: tuple, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
            keys = tuple(entry for entry in path if isinstance(entry, jax.tree_util.DictKey))
            sharding, shape = where.get(_name(keys), (nowhere, leaf.shape))
            return sharding if shape == leaf.shape else nowhere

        return State(shardings, jax.tree.map_with_path(of, self._empty(parameters)))

    def abstract_state(self, parameters: Parameters) -> State:
        """Shapes, dtypes and places of a state, for restoring one."""
        state = State(parameters, self._empty(parameters))
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state,
            self.state_shardings(parameters),
        )

    def first_state(self, parameters: Parameters) -> State:
        """The state before the first step; parameters are copied."""
        shardings = self.state_shardings(parameters)
        placed = jax.device_put(parameters, shardings.parameters, may_alias=False)
        return State(placed, jax.jit(self._init, out_shardings=shardings.optimizer)(placed))

    def place_held(self, held: Parameters) -> Parameters:
        """Parameters that stay, in the dtype in which they are used."""
        return jax.device_put(self._cast(held), self.parameter_shardings(held))

    def place_batch(self, batch: Batch) -> Batch:
        """A batch on the mesh, of which each process gives the examples of its own devices.

        Raises:
            FlowjaxError: its examples cannot be divided.
        """
        axis = int(self.side_by_side)
        spec = PartitionSpec(None, DATA) if self.side_by_side else PartitionSpec(DATA)
        sharding = NamedSharding(self.mesh, spec)
        some, least = jax.tree.leaves(batch)[0], self.micro * self.mesh.local_mesh.shape[DATA]
        if some.shape[axis] % least:
            raise FlowjaxError(
                f"a batch of {some.shape[axis]} examples cannot be divided over "
                f"{self.mesh.local_mesh.shape[DATA]} devices that compute {self.micro} at a time; "
                f"give a multiple of {least}"
            )
        if jax.process_count() == 1:
            return jax.device_put(batch, sharding)
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch
        )

    def function(self, trained: Parameters) -> jax.stages.Wrapped:
        """The compiled step: of a state (given away), what is held, a batch and a key.

        Metrics are means: `loss`, the gradient's norm, and what the loss gives besides.
        """
        one = self._one
        step = jax.vmap(one, in_axes=(0, None, 0, None)) if self.side_by_side else one
        nowhere = NamedSharding(self.mesh, PartitionSpec())
        places = (self.state_shardings(trained), nowhere)
        return jax.jit(step, out_shardings=places, donate_argnums=0)

    def _one(
        self,
        state: State,
        held: Parameters,
        batch: Examples,
        key: jax.Array,
    ) -> tuple[State, dict[str, jax.Array]]:
        keys = jax.random.split(key, len(jax.tree.leaves(batch)[0]) // self.micro)
        slope, sums = self._gradient(state.parameters, held, batch, keys)
        slope = jax.tree.map(lambda leaf: leaf / jnp.maximum(sums.weight, 1e-6), slope)
        updates, optimizer = self.optimizer.update(slope, state.optimizer, state.parameters)
        means = {
            name: total / jnp.maximum(weight, 1e-6)
            for name, (total, weight) in sums.metrics.items()
        }
        metrics = {
            "loss": sums.loss / jnp.maximum(sums.weight, 1e-6),
            "gradient": optax.tree.norm(slope),
            **means,
        }
        return State(optax.apply_updates(state.parameters, updates), optimizer), metrics

    def _gradient(
        self,
        trained: Parameters,
        held: Parameters,
        batch: Examples,
        keys: jax.Array,
    ) -> tuple[Parameters, Sums]:
        """Of the sums over all examples, `micro` on every device at a time."""
        devices = self.mesh.shape[DATA]
        parts, keys = self._parts(batch, self.micro), self._parts(keys, 1)
        keys = keys[..., 0]

        def summed(trained: Parameters, part: Examples, key: jax.Array) -> tuple[jax.Array, Sums]:
            parameters = together(Parts(self._cast(trained), held))
            if devices == 1:
                sums = self.loss_of(parameters, part, key)
            else:
                on_each = jax.vmap(self.loss_of, in_axes=(None, 0, 0), spmd_axis_name=DATA)
                sums = jax.tree.map(lambda x: jnp.sum(x, 0), on_each(parameters, part, key))
            return sums.loss, sums

        def add(
            total: tuple[Parameters, Sums], part: tuple[Batch, jax.Array]
        ) -> tuple[tuple[Parameters, Sums], None]:
            (_, sums), slope = jax.value_and_grad(summed, has_aux=True)(trained, *part)
            return jax.tree.map(jnp.add, total, (slope, sums)), None

        first = jax.tree.map(lambda leaf: leaf[0], (parts, keys))
        _, shapes = jax.eval_shape(summed, trained, *first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (trained, shapes))
        if not self.side_by_side:
            lie = self.parameter_shardings(trained)
            zeros = (jax.lax.with_sharding_constraint(zeros[0], lie), zeros[1])
        total, _ = jax.lax.scan(add, zeros, (parts, keys))
        return total

    def _parts(self, batch: Batch, size: int) -> Batch:
        """The examples as [parts, size, ...], or on several devices [parts, devices, size, ...]."""
        devices = self.mesh.shape[DATA]

        def of(leaf: jax.Array) -> jax.Array:
            if devices == 1:
                return leaf.reshape(-1, size, *leaf.shape[1:])
            own = leaf.reshape(devices, -1, size, *leaf.shape[1:])
            spread = NamedSharding(self.mesh, PartitionSpec(None, DATA))
            return jax.lax.with_sharding_constraint(jnp.swapaxes(own, 0, 1), spread)

        return jax.tree.map(of, batch)

    def _cast(self, parameters: Parameters) -> Parameters:
        if self.compute is None:
            return parameters
        return jax.tree.map(
            lambda leaf: (
                leaf.astype(self.compute) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
            ),
            parameters,
        )

    def _init(self, parameters: Parameters) -> optax.OptState:
        init = self.optimizer.init
        return jax.vmap(init)(parameters) if self.side_by_side else init(parameters)

    def _empty(self, parameters: Parameters) -> optax.OptState:
        """Shapes and dtypes of the optimizer's state."""
        return jax.eval_shape(self._init, parameters)


def _name(path: tuple) -> str:
    return "/".join(str(entry.key) for entry in path)
