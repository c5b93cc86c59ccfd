"""A plan: the mesh, what its programs take, and how long the data take."""

import functools
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flowjax.edges import Knockout
from flowjax.errors import FlowjaxError
from flowjax.mesh import MeshShape
from flowjax.planning.compiled import Measured, compiled, measured
from flowjax.planning.data import Data
from flowjax.planning.estimate import SPARE, Estimate, estimate, meshes, parameter_bytes
from flowjax.planning.hardware import GIB, Chip, Slice
from flowjax.planning.models import Planned, Reading
from flowjax.planning.programs import Program, Programs, kernel_serves, programs
from flowjax.planning.sweep import Sweep, plan_for
from flowjax.planning.targets import Target, described, per_process, target
from flowjax.progress import Advance
from flowjax.sweeps.cost import Cost
from flowjax.sweeps.protocol import Protocol

PATHWAY, TRAINING = "pathway", "training"
OTHERS = (PATHWAY, TRAINING)
"""Programs that a sweep does not run: a prefill pruned to a pathway, and a step of training."""


@dataclass(frozen=True)
class Use:
    """Bytes of a device while one of a run's programs runs.

    parameters: of the whole model.
    kept: the prefill's states, which windows read and the prefill writes.
    temporaries: everything else.
    """

    parameters: int
    kept: int
    temporaries: int

    @property
    def peak(self) -> int:
        """All of it."""
        return self.parameters + self.kept + self.temporaries


@dataclass(frozen=True, eq=False)
class PodPlan:
    """What `flowjax plan` says.

    estimates: of every mesh that was considered, the chosen one's among them.
    programs: compiled for the chosen mesh: what a sample of a sweep runs.
    others: what a sweep does not run, of `OTHERS`.
    """

    model: Planned
    reading: Reading
    data: Data
    sweep: Sweep
    target: Target
    estimates: tuple[Estimate, ...]
    chosen: Estimate
    programs: tuple[Measured, ...]
    others: tuple[Measured, ...]

    @property
    def parameters(self) -> int:
        """Bytes of the model's on each device."""
        return parameter_bytes(self.model.config, self.model.dtype, self.target.model)

    @property
    def kept(self) -> int:
        """Bytes of the kept states on each device, as the compiler lays them."""
        return next(each.memory.outputs for each in self.programs if each.program.keeps)

    def use(self, of: Measured) -> Use:
        """What a program takes of a device's memory."""
        memory = of.memory
        temporaries = memory.temporaries
        if of.program.trains:
            return Use(memory.arguments, 0, temporaries + memory.outputs)
        if of.program.keeps:
            return Use(self.parameters, memory.outputs, temporaries)
        kept = self.kept if of.program.batch is not None else 0
        return Use(self.parameters, kept, temporaries + memory.outputs)

    @property
    def peak(self) -> int:
        """The most bytes of a device that a sweep takes."""
        return max(self.use(each).peak for each in self.programs)

    @property
    def seconds(self) -> float:
        """Of a sample in a group of devices, at the roofline."""
        return sum(each.cost.seconds for each in self.programs)

    @property
    def per_hour(self) -> float:
        """Samples of the whole slice, at the roofline."""
        return 3600 * self.target.groups / self.seconds

    @property
    def hours(self) -> float:
        """Of the data, at the roofline."""
        return self.data.samples / self.per_hour

    @property
    def naive_hours(self) -> float:
        """Of a full forward for every window, at the chips' peak FLOP/s and nothing else."""
        flops = self.sweep.plan.flops.naive * self.data.samples
        return flops / self.target.slice.devices / self.target.slice.chip.flops / 3600

    def largest(self, of: Measured) -> int:
        """Windows of a program's rows that would fit at once, counted from what one of many takes.

        Few windows take less each: those of one row share the lanes of a TPU.
        """
        batch = of.program.batch
        assert batch is not None
        decoder, copies = self.model.config.decoder, self.target.copies
        size = 4 if self.model.dtype == "float32" else 2
        cost = Cost(decoder, size, platform=self.target.slice.chip.backend)
        rows, prefix = batch.rows, batch.prefix
        few, many = (cost.batch_bytes(windows, rows, prefix) for windows in (512, 1024))
        each = (many - few) // 512
        each //= self.target.model if decoder.heads % self.target.model == 0 else 1
        free = self.target.slice.chip.memory - self.use(of).peak
        return batch.size + copies * max(0, free // max(each, 1))


def make_plan(
    model: Planned,
    where: Slice,
    data: Data,
    reading: Reading,
    protocol: Protocol,
    mesh: MeshShape | None,
    *,
    also: Collection[str] = (),
    advance: Advance = lambda part: None,
) -> PodPlan:
    """Choose a mesh if none is given, and compile what a sweep runs on it.

    Args:
        model, reading: what is asked.
        where: the devices.
        data: how often.
        protocol: the sweep.
        mesh: to plan for; None for the one with the most samples an hour.
        also: of `OTHERS`, what to compile besides.
        advance: called with the parts of the work that are done.

    Raises:
        FlowjaxError: it does not fit, and by how much; no compiler; a bad edge, window or mesh.
    """
    for name in also:
        if name not in OTHERS:
            raise FlowjaxError(f"--also {name}: choose {' or '.join(OTHERS)}")
    config, dtype = model.config, model.dtype
    layout = protocol.layout(reading.prompt.layout)
    cells = protocol.cells(layout, config.decoder.layers, config.decoder.heads)
    knockouts = tuple(cell.knockout for cell in cells if isinstance(cell.knockout, Knockout))
    reading = reading.grouped(layout)
    local = per_process(where, described(where))

    @functools.cache
    def sweep_for(copies: int) -> Sweep:
        kernel = copies == 1 and local == 1 and kernel_serves(where.chip, config, dtype)
        return plan_for(reading, knockouts, config, dtype, copies=copies, kernel=kernel)

    def of(where: Slice, shape: MeshShape, local: int) -> Estimate:
        return estimate(config, dtype, where, shape, local, sweep_for)

    shapes = meshes(where, local) if mesh is None else [mesh.over(where.devices)]
    estimates = tuple(of(where, shape, local) for shape in shapes)
    fitting = [each for each in estimates if each.peak <= room(where.chip)]
    if not fitting:
        least = min(estimates, key=lambda each: each.peak)
        raise FlowjaxError(shortfall(model, where, least, of, mesh is not None))
    chosen = max(fitting, key=lambda each: each.per_hour)
    on = target(where, chosen.shape)
    sweep = sweep_for(on.copies)
    made = programs(on, config, dtype, reading, sweep)
    built, others = compile_all(made, where.chip, also, advance)
    plan = PodPlan(model, reading, data, sweep, on, estimates, chosen, built, others)
    if plan.peak > where.chip.memory:
        missing = (plan.peak - where.chip.memory) / GIB
        raise FlowjaxError(
            f"{model.name} on {where} with --mesh {chosen.shape}: as compiled it takes "
            f"{plan.peak / GIB:.2f} GiB of each device, {missing:.2f} more than there are; "
            "give a mesh with a larger model axis"
        )
    return plan


def compile_all(
    made: Programs, chip: Chip, also: Collection[str], advance: Advance
) -> tuple[tuple[Measured, ...], tuple[Measured, ...]]:
    """Compile everything, some at a time: what a sweep runs, and what else is asked for."""
    shapes = made.sweep.plan.shapes + 2 + len(also)

    def work(program: Program) -> Measured:
        found = measured(program, compiled(program.lowered, chip.platform), chip)
        advance(1 / shapes)
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        prefill = made.prefill()
        first = pool.submit(compiled, prefill.lowered, chip.platform)
        embed = pool.submit(work, made.embed())
        base = first.result()
        windows = [pool.submit(work, program) for program in made.windows(prefill, base)]
        lower = {PATHWAY: made.pathway, TRAINING: made.training}
        others = [pool.submit(work, lower[name]()) for name in OTHERS if name in also]
        start = measured(prefill, base, chip)
        advance(1 / shapes)
        sweep = (embed.result(), start, *(future.result() for future in windows))
        return sweep, tuple(future.result() for future in others)


def room(chip: Chip) -> float:
    """Bytes of a device that an estimate may take."""
    return (1 - SPARE) * chip.memory


def shortfall(
    model: Planned,
    where: Slice,
    least: Estimate,
    of: Callable[[Slice, MeshShape, int], Estimate],
    fixed: bool,
) -> str:
    """What is missing on a slice, and what would fit.

    least: the mesh that takes the least of a device.
    of: an estimate for a slice, a mesh and the devices of a process.
    fixed: whether the user chose the mesh.
    """
    local = per_process(where, None)
    others = meshes(where, local) if fixed else []
    fits = [f"--mesh {each} on it" for each in others if fit(of(where, each, local), where)]
    if not fits:
        fits = first_fitting(where, of)
    return (
        f"{model.name} does not fit {where}: with --mesh {least.shape} each device needs "
        f"{least.peak / GIB:.2f} GiB (parameters {least.parameters / GIB:.2f}, kept states "
        f"{least.kept / GIB:.2f}, working memory {least.working / GIB:.2f}) and has "
        f"{room(where.chip) / GIB:.2f}: {(least.peak - room(where.chip)) / GIB:.2f} GiB short; "
        f"{fits[0] if fits else 'no slice that is known here would'}"
        f"{' would fit' if fits else ''}"
    )


def first_fitting(where: Slice, of: Callable[[Slice, MeshShape, int], Estimate]) -> Sequence[str]:
    """The smallest larger slice of the chip on which some mesh fits."""
    for larger in where.larger():
        local = per_process(larger, None)
        for shape in meshes(larger, local):
            if fit(of(larger, shape, local), larger):
                return [f"{larger} with --mesh {shape}"]
    return []


def fit(found: Estimate, where: Slice) -> bool:
    """Whether an estimate is within a device's memory."""
    return found.peak <= room(where.chip)
