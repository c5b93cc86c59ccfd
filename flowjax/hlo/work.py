"""FLOPs and bytes of one instruction, counted as XLA does (`xla/service/hlo_cost_analysis.cc`)."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from flowjax.hlo.text import Computation, Instruction, Module, Shape, root_of

ELEMENTWISE = frozenset((
    "abs", "add", "and", "atan2", "ceil", "clamp", "clz", "compare", "complex", "convert", "divide",
    "floor", "imag", "is-finite", "maximum", "minimum", "multiply", "negate", "not", "or", "popcnt",
    "real", "reduce-precision", "remainder", "round-nearest-afz", "round-nearest-even", "select",
    "shift-left", "shift-right-arithmetic", "shift-right-logical", "sign", "subtract", "xor",
))  # fmt: skip
"""One FLOP for each element of the result."""
FREE = frozenset((
    "add-dependency", "after-all", "all-gather-done", "all-reduce-done", "async-done",
    "async-update", "bitcast", "collective-permute-done", "constant", "copy-done",
    "get-tuple-element", "opt-barrier", "parameter", "partition-id", "recv-done", "replica-id",
    "send-done", "tuple",
))  # fmt: skip
"""Name, or wait for, what another instruction wrote."""
FREE_CALLS = frozenset(("AllocateBuffer", "AssumeGatherIndicesInBound"))
SLICES = frozenset(("slice", "dynamic-slice", "gather"))
"""Read as much of their first operand as they give."""


def is_free(each: Instruction) -> bool:
    """Whether it neither computes nor moves anything."""
    return each.opcode in FREE or target(each) in FREE_CALLS


def target(each: Instruction) -> str:
    """The name of what a custom call calls; empty for other instructions."""
    return each.text("custom_call_target") if each.opcode == "custom-call" else ""


def flops(each: Instruction, within: Computation, module: Module) -> float:
    """FLOPs of an instruction; those of a fusion are its computation's, those of a kernel none.

    within: the instruction's computation.
    """
    if each.opcode == "fusion":
        [name] = each.called("calls")
        fused = module.computations[name]
        return float(sum(flops(part, fused, module) for part in fused.values()))
    operands = [within[name].shapes[0] for name in each.operands if within[name].shapes]
    result = each.shapes[0] if each.shapes else Shape("token", ())
    count = each.elements if each.opcode in ELEMENTWISE else 0
    if each.opcode == "dot":
        count = _dot(result, operands[0], each.numbers("lhs_contracting_dims"))
    elif "dim_labels=" in each.attributes:
        count = _convolution(each, operands)
    elif gemm := each.backend_config.get("gemm_backend_config"):
        axes = gemm["dot_dimension_numbers"]["lhs_contracting_dimensions"]
        count = _dot(result, operands[0], [int(axis) for axis in axes])
    elif each.opcode in ("reduce", "reduce-window"):
        count = operands[0].elements - result.elements
    return float(count)


def _dot(result: Shape, left: Shape, contracting: Sequence[int]) -> int:
    return 2 * result.elements * math.prod(left.sizes[axis] for axis in contracting)


def _convolution(each: Instruction, operands: Sequence[Shape]) -> int:
    """Two for each kernel element that meets an input element.

    A TPU's matrix products are convolutions, with batches as dilated or padded spatial axes.
    """
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", each.attributes)
    assert found, each.attributes
    left, right, out = (
        dict(zip(labels, shape.sizes, strict=True))
        for labels, shape in zip(found.groups(), (*operands[:2], each.shapes[0]), strict=True)
    )
    window = re.search(r"window=\{([^}]*)\}", each.attributes)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    met = 1
    for axis in sorted(set(right) - set("io")):
        index = int(axis)

        def of(name: str, default: str = "1", index: int = index) -> str:
            return fields[name].split("x")[index] if name in fields else default

        low = int(of("pad", "0_0").split("_")[0])
        kernel = np.arange(right[axis])[:, None] * int(of("rhs_dilate"))
        at = kernel + np.arange(out[axis])[None] * int(of("stride")) - low
        dilation = int(of("lhs_dilate"))
        met *= int(((at % dilation == 0) & (at >= 0) & (at // dilation < left[axis])).sum())
    groups = int(each.text("batch_group_count") or 1)
    return 2 * met * right["i"] * out["f"] * (left["b"] // groups)


def moved(each: Instruction, within: Computation, module: Module) -> float:
    """Bytes that an instruction reads and writes."""
    read = [within[name].bytes for name in each.operands]
    if each.opcode == "fusion":
        return _fusion(each, within, module)
    if each.opcode in SLICES:
        return 2.0 * each.bytes + sum(read[1:])
    if each.opcode == "dynamic-update-slice":
        return 2.0 * read[1] + sum(read[2:])
    if each.opcode == "copy-start":
        return 2.0 * read[0]
    return float(sum(read) + each.bytes)


def _fusion(each: Instruction, within: Computation, module: Module) -> float:
    """Of every operand, the part that is used; of every result, what is written anew."""
    [name] = each.called("calls")
    fused = module.computations[name]
    parts = _parts_used(fused, module)
    read = sum(
        part * within[operand].bytes for part, operand in zip(parts, each.operands, strict=True)
    )
    written = sum(
        fused[update].bytes if (update := _update(fused[result], fused)) else fused[result].bytes
        for result in _results(fused)
    )
    return read + written


def _parts_used(fused: Computation, module: Module) -> list[float]:
    """Of each parameter in order, the part that the fused instructions read."""
    used: dict[str, float] = defaultdict(float)
    for result in _results(fused):
        used[result] = 1.0
    for each in reversed(list(fused.values())):
        part = used[each.name] = min(1.0, used[each.name])
        shares = [part] * len(each.operands)
        if each.opcode == "fusion":
            [name] = each.called("calls")
            inner = _parts_used(module.computations[name], module)
            shares = [part * share for share in inner]
        elif each.opcode in SLICES:
            shares[0] *= each.elements / max(1, fused[each.operands[0]].elements)
        elif each.opcode == "dynamic-update-slice" and _update(each, fused):
            shares[0] = 0.0
        for operand, share in zip(each.operands, shares, strict=True):
            used[operand] += share
    parameters = [each for each in fused.values() if each.opcode == "parameter"]
    return [used[each.name] for each in sorted(parameters, key=lambda each: int(each.literal))]


def _results(fused: Computation) -> tuple[str, ...]:
    root = root_of(fused)
    return root.operands if root.opcode == "tuple" else (root.name,)


def _update(result: Instruction, fused: Computation) -> str | None:
    """The instruction whose values a result puts into a parameter, where that lies."""
    result = _named(result, fused)
    if result.opcode != "dynamic-update-slice":
        return None
    into = _named(fused[result.operands[0]], fused)
    return result.operands[1] if into.opcode == "parameter" else None


def _named(each: Instruction, fused: Computation) -> Instruction:
    """What a bitcast names."""
    while each.opcode == "bitcast":
        each = fused[each.operands[0]]
    return each
