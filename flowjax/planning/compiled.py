"""What compiled programs take: memory, FLOPs, bytes, collectives, and a bound on their time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.stages import Compiled, Lowered

from flowjax.compilation import memory_of, text_of
from flowjax.errors import FlowjaxError
from flowjax.hlo.cost import ProgramCost, program_cost
from flowjax.planning.hardware import Chip
from flowjax.planning.programs import Program

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)

QUICKLY: Mapping[str, Mapping[str, Any]] = {
    "tpu": {"exec_time_optimization_effort": -1.0},
    # There is nothing to try programs on; untried, Triton's tiles do not serve every product.
    "cuda": {"xla_gpu_autotune_level": "0", "xla_gpu_enable_triton_gemm": False},
}
"""How a plan's programs are compiled for a platform; a run's own compiling takes longer."""

KERNELS = ("tpu_custom_call", "mosaic_gpu_v2", "mosaic_gpu")
"""Custom-call targets of Pallas kernels."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device while a program runs.

    arguments: that it reads; parameters of the decoder and kept states among them.
    outputs: that it writes.
    temporaries: beside these, at its peak.
    """

    arguments: int
    outputs: int
    temporaries: int

    @property
    def peak(self) -> int:
        """All of it."""
        return self.arguments + self.outputs + self.temporaries


@dataclass(frozen=True)
class Cost:
    """What a device does for one sample in one program.

    flops, bytes: of all runs.
    collectives: bytes that they read and write, by their kind.
    seconds: the roofline's, see `roofline`.
    """

    flops: float
    bytes: float
    collectives: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Measured:
    """A program, compiled.

    cost: of one device for all times that a sample runs it.
    runs: how often that is.
    """

    program: Program
    memory: Memory
    cost: Cost
    runs: int


def compiled(program: Lowered, platform: str) -> Compiled:
    """Compile for devices that are not here.

    Raises:
        FlowjaxError: it takes more memory than the device has.
    """
    try:
        return program.compile(compiler_options=dict(QUICKLY.get(platform, {})))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise FlowjaxError(f"the compiler says: {str(error).splitlines()[0]}") from error


def measured(program: Program, built: Compiled, chip: Chip) -> Measured:
    """What a compiled program takes."""
    taken = memory(built)
    text = text_of(built)
    kernel_flops = {name: lambda _: program.kernel_flops for name in KERNELS}

    def one(trips: int | None) -> Cost:
        return roofline(program_cost(text, unknown_trips=trips, kernel_flops=kernel_flops), chip)

    if program.layers is None:
        return Measured(program, taken, scaled(one(None), len(program.starts)), len(program.starts))
    # All is linear in the loop's length.
    none, each = one(0), one(1)
    layers = sum(program.layers - start for start in program.starts)
    step = added(each, scaled(none, -1))
    total = added(scaled(none, len(program.starts)), scaled(step, layers))
    return Measured(program, taken, total, len(program.starts))


def memory(built: Compiled) -> Memory:
    """What a compiled program holds."""
    said = memory_of(built)
    arguments, outputs = said.argument_size_in_bytes, said.output_size_in_bytes
    outputs -= said.alias_size_in_bytes
    # Of TPUs, what temporaries take in memory is not among `temp_size`.
    beside = said.peak_memory_in_bytes - arguments - outputs
    return Memory(arguments, outputs, max(said.temp_size_in_bytes, beside))


def roofline(cost: ProgramCost, chip: Chip) -> Cost:
    """A bound on a program's time on a chip.

    The sum over instructions of max(FLOPs / peak FLOP/s, bytes / bandwidth), and of every
    collective twice the bytes that it reads and writes / links: an all-reduce of B bytes over many
    devices sends and receives 2 B on each.
    """
    collectives = collective_bytes(cost)
    seconds = cost.seconds(chip.flops, chip.bandwidth) + 2 * sum(collectives.values()) / chip.links
    return Cost(cost.flops, cost.bytes, collectives, seconds)


def collective_bytes(cost: ProgramCost) -> dict[str, float]:
    """Bytes that a device's collectives read and write, by their kind."""
    found: dict[str, float] = {}
    for work in cost.work:
        kind = next((kind for kind in COLLECTIVES if work.opcode.startswith(kind)), None)
        if kind is not None:
            found[kind] = found.get(kind, 0.0) + work.times * work.bytes
    return found


def added(one: Cost, other: Cost) -> Cost:
    """Both together."""
    kinds = {*one.collectives, *other.collectives}
    both = {
        kind: one.collectives.get(kind, 0.0) + other.collectives.get(kind, 0.0) for kind in kinds
    }
    return Cost(one.flops + other.flops, one.bytes + other.bytes, both, one.seconds + other.seconds)


def scaled(cost: Cost, times: float) -> Cost:
    """So many times."""
    collectives = {kind: times * value for kind, value in cost.collectives.items()}
    return Cost(times * cost.flops, times * cost.bytes, collectives, times * cost.seconds)
