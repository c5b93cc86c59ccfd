"""Attention over explicit edge masks that skips the blocks without any edge."""

from flowjax.kernels.pruned_attention.api import (
    Implementation,
    block_shape,
    pruned_attention,
)
from flowjax.kernels.pruned_attention.blocks import BlockMap, stack_maps
from flowjax.kernels.pruned_attention.build import block_map
from flowjax.kernels.pruned_attention.shapes import suited_shape

__all__ = [
    "BlockMap",
    "Implementation",
    "block_map",
    "block_shape",
    "pruned_attention",
    "stack_maps",
    "suited_shape",
]
