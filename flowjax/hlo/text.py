"""The text of a compiled program (optimised HLO), read into instructions.

`jax.stages.Compiled.as_text()` prints one computation after the other, one instruction a line:

    %name = type opcode(%operand, ...), attribute=value, ...

Text is the only form in which JAX shows what XLA made of a program for a device that is not here.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

_HEAD = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*\{$")
_NAMED = re.compile(r"^\s+(ROOT )?%([\w.-]+) = ")
_NAME = re.compile(r"%([\w.-]+)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<= ]*)\]")
_BITS = re.compile(r"\d+")


class Shape(NamedTuple):
    """An array: its type as XLA names it (`bf16`), and its sizes."""

    dtype: str
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """That they take without padding."""
        if self.dtype in ("token", "opaque"):
            return 0
        bits = 8 if self.dtype == "pred" else int(_BITS.findall(self.dtype)[0])
        return self.elements * bits // 8


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    shapes: of its result, all arrays of a tuple in order.
    operands: names of instructions of the same computation.
    attributes: the text after the operands.
    literal: the text between the parentheses.
    root: whether it is what its computation gives.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    literal: str
    root: bool

    @property
    def elements(self) -> int:
        """Of its result."""
        return sum(shape.elements for shape in self.shapes)

    @property
    def bytes(self) -> int:
        """Of its result."""
        return sum(shape.bytes for shape in self.shapes)

    def called(self, attribute: str) -> tuple[str, ...]:
        """Names of the computations that an attribute names, such as `body`."""
        found = re.search(rf"\b{attribute}=(%[\w.-]+|\{{[^}}]*\}})", self.attributes)
        return tuple(_NAME.findall(found[1])) if found else ()

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """An attribute such as `lhs_contracting_dims={0,1}`; nothing if it is absent."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return tuple(map(int, found[1].split(","))) if found and found[1] else ()

    def text(self, attribute: str) -> str:
        """An attribute that is a word, perhaps in quotes; empty if it is absent."""
        found = re.search(rf'\b{attribute}=(?:"([^"]*)"|([\w.>_-]+))', self.attributes)
        return (found[1] or found[2] or "") if found else ""

    @cached_property
    def backend_config(self) -> Mapping[str, Any]:
        """What the backend says of it; empty if that is nothing, or is not JSON."""
        _, found, text = self.attributes.partition("backend_config=")
        if not found or not text.startswith("{"):
            return {}
        try:
            config, _ = json.JSONDecoder().raw_decode(text)
        except json.JSONDecodeError:
            return {}
        return config


Computation = Mapping[str, Instruction]
"""Instructions by name, operands before what reads them."""


@dataclass(frozen=True)
class Module:
    """A program's computations by name."""

    computations: Mapping[str, Computation]
    entry: str

    @classmethod
    def parse(cls, text: str) -> "Module":
        """Read the text of a compiled program.

        Raises:
            ValueError: it has no entry computation.
        """
        computations: dict[str, dict[str, Instruction]] = {}
        current: dict[str, Instruction] = {}
        entry = ""
        for line in text.splitlines():
            if head := _HEAD.match(line):
                current = computations[head[2]] = {}
                entry = head[2] if head[1] else entry
            elif named := _NAMED.match(line):
                current[named[2]] = _instruction(named[2], bool(named[1]), line[named.end() :])
        if not entry:
            raise ValueError(f"no ENTRY in {text[:80]!r}...: not the text of a compiled program")
        return cls(computations, entry)


def root_of(computation: Computation) -> Instruction:
    """What a computation gives."""
    return next(each for each in computation.values() if each.root)


def trips(module: Module, loop: Instruction, within: Computation) -> int | None:
    """How often a loop's body runs; None if that is a value of the program.

    XLA says so, or it follows from a condition `counter < constant` and the counter's first value;
    JAX's loops count by one.
    """
    if known := loop.backend_config.get("known_trip_count"):
        return int(known["n"])
    [name] = loop.called("condition")
    condition = module.computations[name]
    compare = root_of(condition)
    if compare.opcode != "compare" or compare.text("direction") != "LT":
        return None
    counter, limit = (condition[name] for name in compare.operands)
    first = within[loop.operands[0]]
    if counter.opcode != "get-tuple-element" or first.opcode != "tuple":
        return None
    first = within[first.operands[int(counter.text("index"))]]
    while first.opcode == "copy":
        first = within[first.operands[0]]
    if limit.opcode != "constant" or first.opcode != "constant":
        return None
    return max(0, int(limit.literal) - int(first.literal))


def _instruction(name: str, root: bool, text: str) -> Instruction:
    """Read what comes after `%name = `."""
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    kind, rest = text[:end], text[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    literal = rest[opening + 1 : closing]
    shapes = tuple(
        Shape(dtype, tuple(int(size.lstrip("<= ")) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(kind)
    )
    return Instruction(
        name=name,
        opcode=rest[:opening],
        shapes=shapes,
        operands=tuple(_NAME.findall(literal)),
        attributes=rest[closing + 1 :],
        literal=literal,
        root=root,
    )


def _closing(text: str, opening: int) -> int:
    """Index of the parenthesis that closes the one at `opening`."""
    depth = 0
    for index in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"{text[:80]!r}... has no closing parenthesis")
