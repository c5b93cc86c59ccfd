"""FLOPs and bytes of compiled programs, loops counted as often as they run.

JAX's `Compiled.cost_analysis` counts the body of a loop once, and says nothing of programs that
were compiled for a GPU which is not here. This reads a program's text instead, and counts as XLA
does:

- FLOPs: two for each multiplication of a matrix product or convolution, one for each element that
  an elementwise operation computes or a reduction takes in; none for transcendental functions.
- Bytes: what an instruction reads and writes, a fusion being one instruction; of an operand that
  is sliced, the slice; of a result that is updated in place, the update. What stays in a cache
  between two instructions is counted all the same.

A loop is its trip count times its body and condition, a conditional the largest of its branches. A
kernel (custom call) reads its operands and writes its results once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from flowjax.hlo.text import Computation, Instruction, Module, trips
from flowjax.hlo.work import flops, is_free, moved, target


class Work(NamedTuple):
    """An instruction that runs.

    times: how often.
    flops, bytes: each time.
    """

    name: str
    opcode: str
    times: int
    flops: float
    bytes: float


@dataclass(frozen=True)
class ProgramCost:
    """What a compiled program does, by instruction."""

    work: tuple[Work, ...]

    @property
    def flops(self) -> float:
        """Of the whole program."""
        return float(sum(each.times * each.flops for each in self.work))

    @property
    def bytes(self) -> float:
        """Read and written by the whole program."""
        return float(sum(each.times * each.bytes for each in self.work))

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """A model of its time: instructions go one after the other, and each computes or moves.

        The sum of times x max(flops / flops_per_second, bytes / bytes_per_second): the roofline
        (Williams et al. 2009) of every instruction.
        """
        return sum(
            (
                each.times * max(each.flops / flops_per_second, each.bytes / bytes_per_second)
                for each in self.work
            ),
            start=0.0,
        )


def program_cost(
    text: str,
    *,
    unknown_trips: int | None = None,
    kernel_flops: Mapping[str, Callable[[Instruction], float]] | None = None,
) -> ProgramCost:
    """What a compiled program does.

    Args:
        text: of any backend's program (`flowjax.compilation.text_of`).
        unknown_trips: how often a loop runs whose count is a value of the program, such as a
            sweep's window from its first layer on; None if there is none.
        kernel_flops: FLOPs of one call of a kernel, by its custom-call target; of other kernels
            none are counted.

    Raises:
        ValueError: not a compiled program's text, or a loop's count is neither known nor given.
    """
    module = Module.parse(text)
    counter = _Counter(module, unknown_trips, kernel_flops or {})
    return ProgramCost(tuple(counter.computation(module.entry)))


@dataclass(frozen=True)
class _Counter:
    module: Module
    unknown_trips: int | None
    kernel_flops: Mapping[str, Callable[[Instruction], float]]

    def computation(self, name: str) -> list[Work]:
        """What a computation's instructions do, and all that they call."""
        within = self.module.computations[name]
        return [work for each in within.values() for work in self.instruction(each, within)]

    def instruction(self, each: Instruction, within: Computation) -> list[Work]:
        if is_free(each):
            return []
        if each.opcode == "while":
            return self.loop(each, within)
        if each.opcode == "conditional":
            branches = map(self.computation, self.called(each))
            return max(branches, key=lambda work: ProgramCost(tuple(work)).bytes)
        if each.opcode in ("call", "async-start"):
            return [work for name in self.called(each) for work in self.computation(name)]
        count = self.kernel_flops.get(target(each))
        computed = flops(each, within, self.module) if count is None else count(each)
        return [Work(each.name, each.opcode, 1, computed, moved(each, within, self.module))]

    def called(self, each: Instruction) -> list[str]:
        attributes = ("to_apply", "calls", "called_computations", "branch_computations")
        attributes += ("true_computation", "false_computation")
        return [name for attribute in attributes for name in each.called(attribute)]

    def loop(self, each: Instruction, within: Computation) -> list[Work]:
        count = trips(self.module, each, within)
        count = self.unknown_trips if count is None else count
        if count is None:
            raise ValueError(f"loop {each.name} runs as often as a value says: give unknown_trips")
        [body], [condition] = each.called("body"), each.called("condition")
        runs = ((condition, count + 1), (body, count))
        return [
            work._replace(times=work.times * times)
            for name, times in runs
            for work in self.computation(name)
        ]
