"""Reading a kernel's machine code for Hopper (SASS), as `nvdisasm` prints it.

Loops around tensor-core instructions are found by their branches back. `stray_descriptors` follows
every path through the code, for a fault of CUDA 12.8's assembler: a wgmma whose descriptor is set
on one of the paths that lead to it, and left as it was on another.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

WGMMA = "HGMMA"
_LINE = re.compile(
    r"/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:\{\s*)?(?P<guard>@!?U?P\w+\s+)?"
    r"(?P<name>[A-Z][\w.]*)\s*(?P<operands>[^;&]*)"
)
_LABEL = re.compile(r"\s*(\.L_x_\d+):")
_UNIFORM = re.compile(r"\bUR(\d+)\b")


class Instruction(NamedTuple):
    """One instruction; `guarded` if a predicate decides whether it runs."""

    address: str
    guarded: bool
    name: str
    operands: str


@dataclass(frozen=True)
class Loop:
    """An innermost loop that holds wgmma: the indices of its first and last instruction."""

    first: int
    last: int


@dataclass(frozen=True)
class Listing:
    """A kernel's instructions, and where labels point."""

    code: tuple[Instruction, ...]
    labels: dict[str, int]

    @classmethod
    def parse(cls, text: str) -> "Listing":
        """Read what `nvdisasm` printed, with or without control codes."""
        code: list[Instruction] = []
        labels: dict[str, int] = {}
        for line in text.splitlines():
            if label := _LABEL.match(line):
                labels[label[1]] = len(code)
            elif found := _LINE.search(line):
                code.append(
                    Instruction(
                        found["address"],
                        bool(found["guard"]),
                        found["name"],
                        found["operands"].strip(),
                    )
                )
        return cls(tuple(code), labels)

    def count(self, prefix: str, loop: Loop | None = None) -> int:
        """Instructions whose name begins so."""
        code = self.code[loop.first : loop.last + 1] if loop else self.code
        return sum(each.name.startswith(prefix) for each in code)

    def target(self, index: int) -> int | None:
        """Where a branch goes."""
        named = re.search(r"(\.L_x_\d+)", self.code[index].operands)
        return self.labels.get(named[1]) if named else None

    def loops(self) -> list[Loop]:
        """Innermost loops around wgmma. A branch back that always runs ends no loop: those are the
        slow paths of waits, which lie after the kernel.
        """
        found = []
        for index, each in enumerate(self.code):
            start = self.target(index) if each.name == "BRA" and each.guarded else None
            if start is not None and start < index and self.count(WGMMA, Loop(start, index)):
                found.append(Loop(start, index))
        return [
            loop
            for loop in found
            if not any(
                other != loop and loop.first <= other.first and other.last <= loop.last
                for other in found
            )
        ]

    def stray_descriptors(self) -> list[str]:
        """Descriptors of wgmma in a loop that some path leaves unset, or set by another loop."""
        before = self._predecessors()
        stray = []
        for loop in self.loops():
            for use in range(loop.first, loop.last + 1):
                for register in _descriptor(self.code[use]):
                    definitions, unset = self._reaching(use, register, before)
                    partly = len(definitions) + unset > 1
                    outside = [each for each in definitions if not loop.first <= each <= loop.last]
                    if unset or (
                        partly and any(not self._always(each, use, before) for each in outside)
                    ):
                        places = [self.code[each].address for each in sorted(definitions)]
                        where = ", ".join(places) or "no place"
                        stray.append(f"UR{register} at {self.code[use].address}, set at {where}")
        return stray

    def _predecessors(self) -> list[list[int]]:
        before: list[list[int]] = [[] for _ in self.code]
        for index, each in enumerate(self.code):
            ends = each.name in ("BRA", "EXIT", "RET") and not each.guarded
            if each.name in ("BRA", "BSSY") or each.name.startswith("BRA"):
                target = self.target(index)
                if target is not None and target < len(self.code) and each.name != "BSSY":
                    before[target].append(index)
            if not ends and index + 1 < len(self.code):
                before[index + 1].append(index)
        return before

    def _reaching(self, use: int, register: int, before: list[list[int]]) -> tuple[set[int], bool]:
        """Where a register that is read was last written, and whether the kernel's start is so."""
        definitions, seen, queue, unset = set(), set(), [use], False
        while queue:
            at = queue.pop()
            unset |= at == 0
            for each in before[at]:
                if each in seen:
                    continue
                seen.add(each)
                written = register in _written(self.code[each])
                if written:
                    definitions.add(each)
                if not written or self.code[each].guarded:
                    queue.append(each)
        return definitions, unset

    def _always(self, definition: int, use: int, before: list[list[int]]) -> bool:
        """Whether every path from the start to the use runs through a definition."""
        seen, queue = {definition}, [use]
        while queue:
            at = queue.pop()
            if at == 0:
                return False
            for each in before[at]:
                if each not in seen:
                    seen.add(each)
                    queue.append(each)
        return True


def _uniform(text: str) -> list[int]:
    return [int(number) for number in _UNIFORM.findall(text)]


def _descriptor(instruction: Instruction) -> Iterable[int]:
    """The uniform registers that a wgmma reads. With A in registers only B has a descriptor."""
    if not instruction.name.startswith(WGMMA):
        return
    in_registers = re.match(r"R\d+,\s*R\d+,\s*gdesc", instruction.operands)
    for number in re.findall(r"gdesc\[UR(\d+)\]", instruction.operands):
        first = int(number)
        yield from range(first + 2 if in_registers else first, first + 4)


def _written(instruction: Instruction) -> Iterable[int]:
    """The uniform registers that an instruction writes."""
    name = instruction.name
    writes = name.startswith(("U", "R2UR", "S2UR", "VOTEU"))
    if not writes or name.startswith(("UTMA", "USETMAXREG", "UISETP", "UPLOP")):
        return ()
    for operand in instruction.operands.split(","):
        if found := re.match(r"UR(\d+)$", operand.strip()):
            first = int(found[1])
            wide = ".64" in name or "WIDE" in name
            return (first, first + 1) if wide else (first,)
    return ()
