"""The programs of a run, lowered for devices that are not here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jax.stages import Compiled, Lowered

from flowjax.asked.asked import embed_arrays
from flowjax.edges import causal_edges
from flowjax.inference.compile import compile_pathway
from flowjax.inference.prefill import lower_prefill
from flowjax.kernels.pruned_attention import block_shape
from flowjax.kernels.pruned_attention.api import MODULES
from flowjax.mesh import DATA, MODEL
from flowjax.models.checkpoint import nested
from flowjax.models.embedded import Embedded
from flowjax.models.video_llm import VideoLLM, VideoLLMConfig, abstract_model, parameter_shapes
from flowjax.padding import LENGTH_STEP, round_up
from flowjax.pathway import default_pathway
from flowjax.planning.estimate import lies_in_copy
from flowjax.planning.hardware import Chip
from flowjax.planning.models import Reading
from flowjax.planning.sweep import Sweep
from flowjax.planning.targets import Target
from flowjax.sweeps import engine
from flowjax.sweeps.cost import by_kernel
from flowjax.sweeps.plan import Batch
from flowjax.train.schedule import Schedule
from flowjax.train.setup import Setup, lower_step

FROZEN = ("vision",)
"""Parts that a step of training leaves as they are."""

SCHEDULE = Schedule(steps=1000, peak=2e-5, warmup=30, decay=0.0, clip=1.0)
"""Its numbers are constants of the step's program."""

Place = Callable[[Any], jax.ShapeDtypeStruct]
"""An array, or its shape, to its shape where every device of the target holds it whole."""


@dataclass(frozen=True)
class Program:
    """One program, and how often a sample runs it.

    name: in what is printed.
    starts: of every time it runs, the layers that its loop over layers leaves out; one 0 where
        the loop's length is in the program.
    layers: that the loop runs where it leaves out none; None where its length is in the program.
    kernel_flops: of one call of the attention kernel, if it has one.
    batch: of windows; None of others.
    keeps: whether its outputs are what windows start from.
    trains: whether it reads what training keeps, and not a model in its own dtype.
    """

    name: str
    lowered: Lowered
    starts: tuple[int, ...] = (0,)
    layers: int | None = None
    kernel_flops: float = 0.0
    batch: Batch | None = None
    keeps: bool = False
    trains: bool = False


@dataclass(frozen=True, eq=False)
class Programs:
    """Everything that a sweep of a model on a target compiles.

    model: with shapes where they lie in place of parameters.
    """

    target: Target
    model: VideoLLM
    reading: Reading
    sweep: Sweep

    @property
    def place(self) -> Place:
        """Onto the target, whole on every device."""
        where = everywhere(self.target)
        return lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    def embed(self) -> Program:
        """Vision encoder, projector and token embeddings."""
        encoded, place = self.reading.prompt, self.place
        pixels = jax.ShapeDtypeStruct(self.reading.pixels, jnp.float32)
        lowered = embed_arrays.lower(
            self.model, place(encoded.ids), place(encoded.video_position), place(pixels)
        )
        return Program("video and text", lowered)

    def prefill(self) -> Program:
        """The baseline, which keeps states."""
        lowered = engine.prefill.lower(self.model.decoder, self.prompt(self.sweep.plan.length))
        return Program("prefill", lowered, kernel_flops=self._kernel_flops(0), keeps=True)

    def windows(self, prefill: Program, compiled: Compiled) -> Iterator[Program]:
        """One batch of every shape.

        compiled: the prefill, whose states lie where the compiler put them.
        """
        base = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            prefill.lowered.out_info,
            compiled.output_shardings,
        )
        plan, layout = self.sweep.plan, self.reading.prompt.layout
        decoder = self.model.decoder
        for batch, lowered in engine.lower_batches(
            decoder, base, layout, self.sweep.knockouts, plan, self._lying
        ):
            starts = tuple(each.start for each in plan.batches if each.shape == batch.shape)
            windows = f"{batch.size} window{'s' if batch.size > 1 else ''}"
            kernel = by_kernel(batch.size, batch.rows, batch.rows + batch.prefix)
            yield Program(
                f"{windows} x {batch.rows} row{'s' if batch.rows > 1 else ''}",
                lowered,
                starts,
                decoder.config.layers - 1,
                self._kernel_flops(batch.first_row) if kernel else 0.0,
                batch,
            )

    def pathway(self) -> Program:
        """A prefill pruned to the paper's pathway in its strict form."""
        config, layout = self.model.config, self.reading.prompt.layout
        decoder = self.model.decoder
        implementation = "xla"  # kernels serve only where their devices are
        pathway = default_pathway(config.family, config.decoder.layers, "strict")
        compiled = compile_pathway(
            layout,
            pathway.knockouts(layout),
            config.decoder,
            blocks=block_shape(config.decoder.head_dim, implementation),
        )
        lowered, _ = lower_prefill(
            decoder,
            self.prompt(layout.length, padded=False),
            jax.tree.map(self.place, compiled),
            implementation=implementation,
        )
        kept = [stage.blocks for stage in compiled.stages if stage.blocks is not None]
        area = max((blocks.kept_edges for blocks in kept), default=0)
        heads = config.decoder.heads * 4 * config.decoder.head_dim
        return Program("pruned prefill", lowered, kernel_flops=float(heads * area))

    def training(self) -> Program:
        """A step of training with one video on each copy of the model that the slice has."""
        mesh = Mesh(
            np.asarray(self.target.mesh.devices).reshape(-1, self.target.model), (DATA, MODEL)
        )
        encoded = self.reading.prompt
        lowered = lower_step(
            Setup(self.model.config, self.model.dtype, FROZEN, None, 1, True),
            mesh,
            SCHEDULE,
            batch=mesh.shape[DATA],
            length=round_up(encoded.layout.length, LENGTH_STEP),
            pixels=self.reading.pixels,
            video=len(encoded.video_position),
        )
        return Program("training step", lowered, trains=True)

    def prompt(self, length: int, *, padded: bool = True) -> Embedded:
        """An embedded prompt's shapes, as long as a plan has it."""
        config, place = self.model.config.decoder, self.place
        shapes = jax.eval_shape(
            embed_arrays,
            self.model,
            self.reading.prompt.ids,
            self.reading.prompt.video_position,
            jax.ShapeDtypeStruct(self.reading.pixels, jnp.float32),
        )
        x, deepstack = shapes
        axes = len(self.reading.prompt.rope_position)
        deep = None
        if deepstack is not None:
            deep = jax.ShapeDtypeStruct((len(deepstack), length, config.width), deepstack.dtype)
        prompt = Embedded(
            jax.ShapeDtypeStruct((length, config.width), x.dtype),  # type: ignore[arg-type]
            jax.ShapeDtypeStruct((axes, length), jnp.int32),  # type: ignore[arg-type]
            deep,  # type: ignore[arg-type]
            jax.ShapeDtypeStruct((), jnp.int32) if padded else None,  # type: ignore[arg-type]
        )
        return jax.tree.map(place, prompt)

    def _lying(self, leaf: Any) -> jax.ShapeDtypeStruct:  # noqa: ANN401
        """What is divided over copies stays so; all else is whole everywhere."""
        return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else self.place(leaf)

    def _kernel_flops(self, first_row: int) -> float:
        config, length = self.model.config.decoder, self.sweep.plan.length
        if self.model.decoder.kernel_for(length) is None:
            return 0.0
        return float(config.heads * 4 * config.head_dim * causal_edges(first_row, length))


def programs(
    target: Target, config: VideoLLMConfig, dtype: str, reading: Reading, sweep: Sweep
) -> Programs:
    """The programs of a model on a target, for one typical sample.

    Args:
        target: devices and mesh.
        config: the model's.
        dtype: of its parameters.
        reading: the sample.
        sweep: planned for the target's copies.
    """
    model = abstract_model(config, jnp.dtype(dtype))
    graph, state = nnx.split(model)
    shapes = parameter_shapes(config)
    placed = {
        name: jax.ShapeDtypeStruct(
            shape, jnp.dtype(dtype), sharding=lies(target, config, name, shape)
        )
        for name, shape in shapes.items()
    }
    nnx.replace_by_pure_dict(state, nested(placed))
    model = nnx.merge(graph, state)
    model.decoder.mesh = None if target.alone else target.mesh
    if target.alone and kernel_serves(target.slice.chip, config, dtype):
        model.decoder.kernel = target.slice.chip.kernel
    return Programs(target, model, reading, sweep)


def kernel_serves(chip: Chip, config: VideoLLMConfig, dtype: str) -> bool:
    """Whether a model that lies on one such device attends by its kernel (see `kernel_here`)."""
    return dtype == "bfloat16" and config.decoder.head_dim <= MODULES[chip.kernel].MOST_WIDTH


def lies(
    target: Target, config: VideoLLMConfig, name: str, shape: tuple[int, ...]
) -> jax.sharding.Sharding:
    """Where a parameter lies: divided over `model`, whole in every copy."""
    if target.alone:
        return everywhere(target)
    return NamedSharding(target.mesh, lies_in_copy(config, name, shape, target.model).spec)


def everywhere(target: Target) -> jax.sharding.Sharding:
    """Whole on every device."""
    if target.alone:
        return SingleDeviceSharding(np.asarray(target.mesh.devices).flat[0])
    return NamedSharding(target.mesh, PartitionSpec())
