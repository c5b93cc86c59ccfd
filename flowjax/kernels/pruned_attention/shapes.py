"""Which blocks suit a layer: large ones fill the hardware, small ones keep fewer dead edges."""

import jax
import numpy as np
from jaxtyping import Bool, Int

from flowjax.kernels.pruned_attention.api import BEST, Implementation, block_shape
from flowjax.kernels.pruned_attention.build import block_map

LARGE = 512, 1024
"""For TPUs, where nearly nothing is cut."""
LONGER = 2.8
"""A visit of such a block takes so many times as long as one of `block_shape`: 2.5 to 3.0 in the
machine code for v5e and v5p, less on v6e (docs/kernel.md)."""


def suited_shape(
    mask_group: Int[np.ndarray, " n"],
    allowed: Bool[np.ndarray, "heads g g"],
    query_position: Int[np.ndarray, " q"],
    key_position: Int[np.ndarray, " k"],
    width: int,
    implementation: Implementation | None = None,
) -> tuple[int, int]:
    """Rows of a block, (`block_q`, `block_k`), in which a layer takes least time.

    Args:
        mask_group, allowed, query_position, key_position: of the layer, as `block_map` takes them.
        width: head size.
        implementation: None for what `pruned_attention` takes on this machine.
    """
    implementation = implementation or BEST.get(jax.default_backend(), "xla")
    small = block_shape(width, implementation)
    if implementation != "mosaic_tpu":
        return small
    few, many = (
        block_map(
            mask_group, allowed, query_position, key_position, block_q=block_q, block_k=block_k
        ).kept_blocks
        for block_q, block_k in (LARGE, small)
    )
    return LARGE if LONGER * few < many else small
