"""What a prefill costs: full, masked, and compiled; counted, not measured."""

from dataclasses import dataclass

import numpy as np

from flowjax.edges import causal_edges, edge_counts
from flowjax.inference.compile import Compiled
from flowjax.kernels.pruned_attention import BlockMap
from flowjax.layout import TokenLayout
from flowjax.models.cost import LayerCost
from flowjax.models.decoder import DecoderConfig


@dataclass(frozen=True)
class PrefillCost:
    """Counts over all layers and heads of one prefill.

    flops: of matrix products, two for each multiplication; attention counts `edges`, logits one
        row.
    edges: attention scores that are computed.
    blocks: blocks of the attention square that hold them; where layers have blocks of different
        shapes, as many of the smallest as cover them.
    cache_bytes: keys and values that decoding reads.
    """

    flops: int
    edges: int
    blocks: int
    cache_bytes: int


@dataclass(frozen=True)
class Costs:
    """Prefill without a pathway, and with one, as a mask or compiled.

    kept_edges: the share of causal edges that the pathway keeps. Masked, all causal scores are
        computed and the others thrown away; compiled, only those into live rows are.
    """

    full: PrefillCost
    masked: PrefillCost
    compiled: PrefillCost
    kept_edges: float


def costs(
    layout: TokenLayout, compiled: Compiled, config: DecoderConfig, *, value_bytes: int
) -> Costs:
    """Count a prefill under the pathway that `compiled` was made of.

    Args:
        layout: the prompt's token groups.
        compiled: the pathway for this layout.
        config: the decoder's.
        value_bytes: of one value of a key.
    """
    cost, length = LayerCost(config), layout.length
    causal = causal_edges(0, length)
    of_layers = config.layers * config.heads
    smallest = min(_maps(compiled), key=_area, default=None)
    full = PrefillCost(
        flops=_flops(cost, config.layers * length, config.layers * length, of_layers * causal),
        edges=of_layers * causal,
        blocks=of_layers * _causal_blocks(length, smallest) if smallest else 0,
        cache_bytes=config.layers * length * cost.cached * value_bytes,
    )
    table = np.asarray(compiled.mask.allowed)
    kept = np.einsum("lhts,ts->", table, edge_counts(layout)) / (table.shape[1] * config.layers)
    thin = compiled_cost(compiled, config, value_bytes=value_bytes)
    return Costs(full, full, thin, float(kept / causal))


def compiled_cost(compiled: Compiled, config: DecoderConfig, *, value_bytes: int) -> PrefillCost:
    """Count what the stages of a compiled pathway do."""
    cost = LayerCost(config)
    maps = _maps(compiled)
    unit = min(map(_area, maps), default=1)
    heads = config.heads // compiled.mask.allowed.shape[1]
    rows = sum(stage.layers * len(stage.row_position) for stage in compiled.stages)
    sources = sum(stage.layers * len(stage.source_position) for stage in compiled.stages)
    edges = heads * sum(blocks.kept_edges for blocks in maps)
    return PrefillCost(
        flops=_flops(cost, rows, sources, edges),
        edges=edges,
        blocks=heads * sum(blocks.kept_blocks * _area(blocks) // unit for blocks in maps),
        cache_bytes=sum(cut.layers * len(cut.position) for cut in compiled.cuts)
        * cost.cached
        * value_bytes,
    )


def _flops(cost: LayerCost, rows: int, sources: int, edges: int) -> int:
    """FLOPs of rows, sources and edges summed over layers (edges also over heads)."""
    return rows * cost.row + sources * cost.source + edges * cost.edge + cost.logits


def _maps(compiled: Compiled) -> list[BlockMap]:
    return [stage.blocks for stage in compiled.stages if stage.blocks is not None]


def _area(blocks: BlockMap) -> int:
    return blocks.block_q * blocks.block_k


def _causal_blocks(length: int, blocks: BlockMap) -> int:
    """Blocks on and below the diagonal of the whole square."""
    last = np.minimum(np.arange(blocks.block_q, length + blocks.block_q, blocks.block_q), length)
    return int((-(-last // blocks.block_k)).sum())
