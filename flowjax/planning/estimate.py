"""What a mesh takes, counted without compiling, to choose among meshes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax.sharding import AbstractMesh, NamedSharding

from flowjax.mesh import DATA, MODEL, MeshShape
from flowjax.models.cost import LayerCost
from flowjax.models.sharding import parameter_sharding
from flowjax.models.video_llm import VideoLLMConfig, parameter_shapes
from flowjax.planning.hardware import Slice
from flowjax.planning.sweep import Sweep
from flowjax.sweeps.cost import Cost

SPARE = 0.02
"""The part of a device's memory that programs themselves and small arrays take."""


@dataclass(frozen=True)
class Estimate:
    """A mesh on a slice, counted.

    shape: with both sizes.
    copies: of the model that divide a sample's windows; the others have samples of their own.
    parameters, kept, working: bytes of a device.
    seconds: of a sample in a group, at the roofline.
    """

    shape: MeshShape
    copies: int
    parameters: int
    kept: int
    working: int
    seconds: float

    @property
    def peak(self) -> int:
        """Bytes of a device."""
        return self.parameters + self.kept + self.working

    @property
    def groups(self) -> int:
        """Of devices, each of which has samples of its own."""
        assert self.shape.data is not None
        return self.shape.data // self.copies

    @property
    def per_hour(self) -> float:
        """Samples."""
        return 3600 * self.groups / self.seconds


def parameter_bytes(config: VideoLLMConfig, dtype: str, model: int) -> int:
    """Bytes of the parameters on one of the `model` devices that share a copy.

    The arithmetic of `flowjax.models.sharding`.
    """
    total = 0
    for path, shape in parameter_shapes(config).items():
        total += math.prod(lies_in_copy(config, path, shape, model).shard_shape(shape))
    return total * jnp.dtype(dtype).itemsize


def lies_in_copy(
    config: VideoLLMConfig, path: str, shape: tuple[int, ...], model: int
) -> NamedSharding:
    """Where a parameter lies on the `model` devices that share a copy."""
    mesh = AbstractMesh((1, model), (DATA, MODEL))
    return parameter_sharding(path, shape, mesh, kv_heads=config.decoder.kv_heads)


def meshes(where: Slice, local: int) -> list[MeshShape]:
    """Meshes of a slice whose processes have `local` devices; sizes are powers of two."""
    sizes = [2**power for power in range(where.devices.bit_length())]
    return [
        MeshShape(where.devices // model, model)
        for model in sizes
        if where.devices % model == 0 and (local % model == 0 or model % local == 0)
    ]


def estimate(
    config: VideoLLMConfig,
    dtype: str,
    where: Slice,
    shape: MeshShape,
    local: int,
    sweep_for: Callable[[int], Sweep],
) -> Estimate:
    """What a mesh takes.

    Args:
        config: the model's.
        dtype: of its parameters.
        where: the slice.
        shape: the mesh.
        local: devices of a process.
        sweep_for: the plan of a sample's sweep over so many copies.
    """
    chip, decoder, size = where.chip, config.decoder, jnp.dtype(dtype).itemsize
    model, copies = shape.model, max(1, local // shape.model)
    sweep, value, layer = (
        sweep_for(copies),
        Cost(decoder, size, platform=chip.backend),
        LayerCost(decoder),
    )
    plan = sweep.plan
    split_kv = model if decoder.kv_heads % model == 0 else 1
    split_heads = model if decoder.heads % model == 0 else 1
    kept = decoder.layers * plan.length * (decoder.width + layer.cached // split_kv) * size
    needs = [value.prefill_bytes(plan.length)]
    needs += [
        value.batch_bytes(each.size // copies, each.rows, each.prefix) for each in plan.batches
    ]
    weights = parameter_bytes(config, dtype, model)
    # Matrix products and the bytes of weights, whichever takes longer, and two sums a layer.
    rows = [(decoder.layers, plan.length)]
    rows += [
        (decoder.layers - each.start, each.size // copies * each.rows) for each in plan.batches
    ]
    linear = layer.row / model + layer.source / split_kv
    attention = plan.flops.baseline - decoder.layers * plan.length * (layer.row + layer.source)
    seconds = attention / split_heads / chip.flops
    of_layer = linear / 2 * size
    for layers, count in rows:
        compute = max(count * linear / chip.flops, of_layer / chip.bandwidth)
        moved = 0 if model == 1 else 2 * 4 * count * decoder.width * size * (model - 1) / model
        seconds += layers * (compute + moved / chip.links)
    return Estimate(shape, copies, weights, kept, max(needs) // split_heads, seconds)
