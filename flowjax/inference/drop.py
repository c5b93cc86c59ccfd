"""Rows that leave the prompt after a layer, chosen by the program that runs it.

How many stay is known when the program is compiled, which of them when it runs. The layers after
the choice compute the rows that stay, in the order of their positions, so their block maps follow
from the number alone. The layer before is the last whose keys and values are of all rows: of its
other work only that of the rows that stay is done, which is all that later layers read.
"""

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from flowjax.inference.compile import Compiled, Cut, Stage, compile_layers
from flowjax.inference.live import LayerRows
from flowjax.masks import causal_mask
from flowjax.models.decoder import DecoderConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Drop:
    """Everything static about a prompt whose rows leave it after a layer.

    before: stages of the layers before the last that reads all rows, over all positions.
    after: those of the layers after the choice; their positions are places among what stays.
    layer: the first layer without the rows that leave.
    length: positions of the prompt.
    stay: rows that stay.
    room: generated tokens that the cache can hold.
    """

    before: tuple[Stage, ...]
    after: tuple[Stage, ...]
    layer: int = field(metadata={"static": True})
    length: int = field(metadata={"static": True})
    stay: int = field(metadata={"static": True})
    room: int = field(metadata={"static": True})


def compile_drop(
    length: int, stay: int, layer: int, config: DecoderConfig, *, room: int = 1
) -> Drop:
    """Compile, on the host.

    Args:
        length: positions of the prompt.
        stay: how many stay after the choice, the last among them.
        layer: the first layer without the others, 1 to layers - 1.
        config: the decoder's.
        room: generated tokens that the cache is to hold, at least 1.
    """
    every, kept = np.arange(length, dtype=np.int32), np.arange(stay, dtype=np.int32)
    last = LayerRows(kept[-1:], kept, kept)
    whole = [LayerRows(every, every, every)] * (layer - 1)
    thin = [*[LayerRows(kept, kept, kept)] * (config.layers - layer - 1), last]

    def stages(layers: list[LayerRows], rows: np.ndarray, first: int) -> tuple[Stage, ...]:
        cell, table = np.zeros(len(rows), np.int32), np.ones((len(layers), 1, 1, 1), bool)
        return compile_layers(cell, table, layers, rows, width=config.head_dim, first=first)

    before = stages(whole, every, 0) if whole else ()
    return Drop(before, stages(thin, kept, layer), layer, length, stay, max(room, 1))


def place(drop: Drop, kept: Int[Array, " stay"], layers: int) -> Compiled:
    """The compiled prompt once it is known what stays; may be traced.

    Args:
        drop: what is known before.
        kept: int32, ascending positions that stay.
        layers: of the decoder.
    """
    every = jnp.arange(drop.length, dtype=jnp.int32)
    cut = Cut(drop.layer - 1, 1, 0, None, every, True)
    choosing = Stage(drop.layer - 1, 1, kept, None, kept, every, None, None, (cut,))

    def placed(stage: Stage) -> Stage:
        cuts = (dataclasses.replace(cut, position=kept[cut.position]) for cut in stage.cuts)
        return dataclasses.replace(
            stage,
            row_position=kept[stage.row_position],
            source_position=kept[stage.source_position],
            cuts=tuple(cuts),
        )

    stages = (*drop.before, choosing, *map(placed, drop.after))
    return Compiled(causal_mask(layers, every * 0), None, stages, drop.length, drop.room)
