"""Live rows: what of a prompt can still reach the answer, layer by layer.

Walk back from the final position. A row is live after layer l if it is live after layer l + 1 (the
residual) or a live row of layer l + 1 reads it (an allowed edge)::

    layer   computed rows           read as sources         read while decoding
    0-19    all                     all but the last        system; from layer 15 on also text
    20-24   system, text, last      system, text            system, text
    25-31   system, last            system                  system
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from flowjax.layout import TokenLayout


@dataclass(frozen=True, eq=False)
class LayerRows:
    """What one layer must compute: ascending positions, int32.

    rows: whose output is needed: queries, attention, MLP.
    sources: that a computed row reads in some head: keys and values.
    cache: sources that a generated token can read, which takes the role of the final position.
    """

    rows: Int[np.ndarray, " rows"]
    sources: Int[np.ndarray, " sources"]
    cache: Int[np.ndarray, " cache"]


def live_rows(
    layout: TokenLayout, table: Bool[np.ndarray, "layers heads g g"]
) -> tuple[LayerRows, ...]:
    """What every layer must compute for the final position's output and for decoding after it.

    Args:
        layout: the prompt's token groups.
        table: allowed edges, target cell x source cell (see `flowjax.edges.edge_table`).
    """
    position = np.arange(layout.length)
    live = position == layout.length - 1
    layers = []
    for allowed in np.any(table, axis=1)[::-1]:
        # The last live position of each target cell decides how far it reads, by causality.
        reach = np.full(len(layout.cells), -1)
        np.maximum.at(reach, layout.cell[live], position[live])
        furthest = np.where(allowed, reach[:, None], -1).max(axis=0)
        sources = position <= furthest[layout.cell]
        cache = allowed[layout.cell[-1], layout.cell]
        layers.append(LayerRows(*(_indices(mask) for mask in (live, sources, cache))))
        live = live | sources
    return tuple(layers[::-1])


def _indices(mask: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    return np.flatnonzero(mask).astype(np.int32)
