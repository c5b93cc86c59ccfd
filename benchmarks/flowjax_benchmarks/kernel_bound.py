"""How fast a layer's attention could be: dense attention's share of the kept blocks, or memory.

No kernel computes a kept block in less time than the best dense attention does, nor ends before
what its live blocks read was read and the output written once. The aim leaves 15% for blocks that
are masked, and a tenth of the memory's bandwidth and 5 us for starting and ending.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention import BlockMap
from flowjax.kernels.pruned_attention.blocks import NONE, unpack


class Chip(NamedTuple):
    """Bytes per second of memory, bytes of its cache, and bfloat16 FLOPs per second."""

    bandwidth: float
    cached: float
    flops: float


CHIPS = {
    "H100 80GB HBM3": Chip(3.35e12, 50e6, 989.4e12),
    "H100 PCIe": Chip(2.0e12, 50e6, 756e12),
    "H200": Chip(4.8e12, 50e6, 989.4e12),
}
"""By a part of the device's name; from the makers' data sheets."""
REACHED = 0.9
"""The part of a memory's bandwidth that a kernel can reach."""
SLACK, STARTING = 1.15, 5e-6


class Bound(NamedTuple):
    """A layer's bound and aim in seconds, and what decides it."""

    seconds: float
    aim: float
    by: Literal["compute", "memory"]


def chip() -> Chip | None:
    """This machine's, if it is known."""
    kind = jax.devices()[0].device_kind
    return next((each for name, each in CHIPS.items() if name in kind), None)


def bytes_of(blocks: BlockMap, arrays: Sequence[Array]) -> float:
    """To read what live blocks read, once, and write the output.

    arrays: query, key and value.
    """
    query, key, value = arrays
    visits = [unpack(np.asarray(each)) for each in blocks.visits]
    rows, columns = (
        len(np.unique(np.concatenate([each[which][each.kind != NONE] for each in visits]))) / total
        for which, total in ((0, blocks.bounds.shape[1]), (1, -(-blocks.keys // blocks.block_k)))
    )
    return (1 + rows) * query.nbytes + columns * (key.nbytes + value.nbytes)


def bound_of(blocks: BlockMap, arrays: Sequence[Array], dense: float) -> Bound:
    """The bound of a layer.

    Args:
        blocks: the layer's map.
        arrays: query, key and value.
        dense: seconds of dense causal attention.
    """
    compute, memory = dense * blocks.kept_blocks / blocks.causal_blocks, 0.0
    if here := chip():
        memory = bytes_of(blocks, arrays) / (REACHED * here.bandwidth)
    seconds = max(compute, memory)
    by = "compute" if seconds == compute else "memory"
    return Bound(seconds, SLACK * seconds + STARTING, by)


def check(seconds: float, blocks: BlockMap, arrays: Sequence[Array]) -> None:
    """Refuse a time in which the chip can neither compute nor read so much.

    Raises:
        FlowjaxError: what was measured is not what was meant.
    """
    here = chip()
    if here is None:
        return
    query = arrays[0]
    heads = query.shape[1] // blocks.table_of_head.shape[-1]
    computed = 4 * heads * blocks.kept_blocks * blocks.block_q * blocks.block_k * query.shape[2]
    read = max(0.0, bytes_of(blocks, arrays) - here.cached)
    least = max(computed / here.flops, read / here.bandwidth)
    if seconds < least:
        raise FlowjaxError(
            f"measured {seconds * 1e6:.1f} us, less than the {least * 1e6:.1f} us in which "
            f"{jax.devices()[0].device_kind} could do it: calls were left out"
        )
