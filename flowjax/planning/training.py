"""A step of training, lowered for devices that are not here."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Lowered

from flowjax.mesh import DATA, MODEL
from flowjax.models.sharding import training_sharding
from flowjax.models.video_llm import VideoLLMConfig, abstract_model
from flowjax.padding import LENGTH_STEP, round_up
from flowjax.train.instruct import Instructed, instruction_loss
from flowjax.train.packing import Packed
from flowjax.train.parameters import divide
from flowjax.train.schedule import Schedule
from flowjax.train.step import State, Step

FROZEN = ("vision",)
"""Parts that stay as they are."""

SCHEDULE = Schedule(steps=1000, peak=2e-5, warmup=30, decay=0.0, clip=1.0)
"""Its numbers are in the program and change nothing of what it takes."""


def lower_step(
    config: VideoLLMConfig,
    dtype: str,
    mesh: Mesh,
    *,
    positions: int,
    axes: int,
    video: int,
    pixels: tuple[int, ...],
    examples: int,
    remat: bool = True,
) -> tuple[Lowered, State]:
    """A step over one example at a time on every device, and the state's shapes.

    Parameters, gradients and moments are float32 and divided as `training_sharding` says.

    Args:
        config: the model's.
        dtype: of computing.
        mesh: axes `data` and `model`.
        positions: of a sequence, rounded up.
        axes: of its rotary positions.
        video: positions of the video in it.
        pixels: shape of a video's pixel values.
        examples: of the batch, a multiple of the devices on `data`.
        remat: compute layers anew in the backward pass.
    """
    graph, state = nnx.split(abstract_model(config, jnp.dtype("float32")))
    parts = divide(nnx.to_pure_dict(state), FROZEN)
    loss = instruction_loss(graph, 1, remat=remat)
    compute = jnp.dtype(dtype)

    def layout(path: str, shape: tuple[int, ...]) -> PartitionSpec:
        return training_sharding(path, shape, mesh).spec

    step = Step(loss, SCHEDULE.optimizer(), 1, mesh, layout, compute)
    first = step.abstract_state(parts.trained)
    held = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, compute, sharding=where),
        parts.held,
        step.parameter_shardings(parts.held),
    )
    divided = NamedSharding(mesh, PartitionSpec(DATA))

    def array(shape: tuple[int, ...], kind: Any) -> Any:  # noqa: ANN401
        return jax.ShapeDtypeStruct((examples, *shape), kind, sharding=divided)

    length = round_up(positions, LENGTH_STEP)
    packed = Packed(
        array((length,), jnp.int32),
        array((length,), jnp.int32),
        array((axes, length), jnp.int32),
        array((length,), jnp.int32),
        array((length,), jnp.float32),
    )
    batch = Instructed(packed, array((video,), jnp.int32), array(pixels, jnp.float32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    whole = NamedSharding(mesh, PartitionSpec())
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole)
    function: Any = step.function(parts.trained)
    return function.lower(first, held, batch, key), first


def training_mesh(devices: Any, model: int) -> Mesh:  # noqa: ANN401 - arrays of described devices
    """All devices of a slice: batches over `data`, tensor parallel over `model`."""
    return Mesh(np.asarray(devices).reshape(-1, model), (DATA, MODEL))
