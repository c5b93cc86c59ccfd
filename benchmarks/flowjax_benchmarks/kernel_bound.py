"""How fast a layer's attention could be: dense attention's share of the kept blocks, or memory.

No kernel computes a kept block in less time than the best dense attention does, nor ends before
queries, keys and values were read and the output written once. The aim leaves 15% for blocks that
are masked, and a tenth of the memory's bandwidth and 5 us for starting and ending.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import jax
from jaxtyping import Array

BANDWIDTH = {"H100 80GB HBM3": 3.35e12, "H100 PCIe": 2.0e12, "H200": 4.8e12}
"""Bytes per second of memory, by a part of the device's name; from the makers' data sheets."""
REACHED = 0.9
"""The part of a memory's bandwidth that a kernel can reach."""
SLACK, STARTING = 1.15, 5e-6


class Bound(NamedTuple):
    """A layer's bound and aim in seconds, and what decides it."""

    seconds: float
    aim: float
    by: Literal["compute", "memory"]


def memory_seconds(rows: Iterable[Array]) -> float | None:
    """To read query, key and value and write the output once; None for an unknown memory."""
    query, key, value = rows
    kind = jax.devices()[0].device_kind
    for name, bandwidth in BANDWIDTH.items():
        if name in kind:
            return (2 * query.nbytes + key.nbytes + value.nbytes) / (REACHED * bandwidth)
    return None


def bound_of(fraction: float, dense: float, memory: float | None) -> Bound:
    """The bound of a layer.

    Args:
        fraction: of the causal blocks that are kept.
        dense: seconds of dense causal attention.
        memory: see `memory_seconds`.
    """
    compute = fraction * dense
    seconds = max(compute, memory or 0.0)
    by = "compute" if seconds == compute else "memory"
    return Bound(seconds, SLACK * seconds + STARTING, by)
