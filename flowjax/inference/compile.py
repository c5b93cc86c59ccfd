"""A pathway and a prompt's layout, compiled to static row sets, block maps and cache cuts.

Consecutive layers whose input and output rows are the same, and which the same attention blocks
suit, share a *stage*, which one scan runs. Live rows only ever shrink towards the answer, so there
are few stages however deep the decoder is. Within a stage, layers whose cache holds the same
positions share a *cut*, which one scan of a decode step reads.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from flowjax.edges import Knockout, edge_table
from flowjax.inference.live import LayerRows, live_rows
from flowjax.kernels.pruned_attention import BlockMap, block_map, stack_maps, suited_shape
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeMask, Mask
from flowjax.models.decoder import DecoderConfig

SPARE = 64
"""Where fewer than one input row in so many is not read, it is projected to a key and a value all
the same: taking the others out in every layer costs more."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Cut:
    """Cache entries of consecutive layers that keep the same positions.

    first, layers: of the decoder, from layer `first`.
    offset: of `first` in its stage.
    take: int32 [c], indices into what the stage keeps; None for all of it.
    position: int32 [c], absolute.
    written: whether a generated token reads generated tokens in any of these layers.
    """

    first: int = field(metadata={"static": True})
    layers: int = field(metadata={"static": True})
    offset: int = field(metadata={"static": True})
    take: Int[Array, " c"] | None
    position: Int[Array, " c"]
    written: bool = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Stage:
    """Consecutive layers that one scan runs.

    first, layers: of the decoder, from layer `first`.
    rows, sources: int32, which of the stage's input rows are computed, and which are projected to
        keys and values; None for all.
    row_position, source_position: int32, their absolute positions.
    keep: int32 [c], which sources are kept for decoding in any of these layers; None for all.
    blocks: with a leading axis of layers; None where nothing is read, or where the rows are chosen
        by the program itself and attend by the mask.
    cuts: of the kept keys and values.
    """

    first: int = field(metadata={"static": True})
    layers: int = field(metadata={"static": True})
    rows: Int[Array, " r"] | None
    sources: Int[Array, " s"] | None
    row_position: Int[Array, " r"]
    source_position: Int[Array, " s"]
    keep: Int[Array, " c"] | None
    blocks: BlockMap | None
    cuts: tuple[Cut, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Compiled:
    """Everything static about pruned inference of one prompt layout under one pathway.

    mask: the pathway's edges. Positions after the prompt's are of its final position's cell.
    rows: int32 [r], positions of the prompt that the first layer reads; None for all.
    stages: in the order of layers.
    length: positions of the prompt.
    room: generated tokens that the cache can hold.
    """

    mask: Mask
    rows: Int[Array, " r"] | None
    stages: tuple[Stage, ...]
    length: int = field(metadata={"static": True})
    room: int = field(metadata={"static": True})

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Cache cuts of all stages."""
        return tuple(itertools.chain.from_iterable(stage.cuts for stage in self.stages))


def compile_pathway(
    layout: TokenLayout,
    knockouts: Iterable[Knockout],
    config: DecoderConfig,
    *,
    room: int = 1,
    blocks: tuple[int, int] | None = None,
) -> Compiled:
    """Compile a pathway for one prompt layout; runs on the host and reads no parameter.

    Args:
        layout: the prompt's token groups.
        knockouts: the edges the pathway cuts (see `flowjax.pathway.Pathway.knockouts`); none for
            plain causal inference.
        config: the decoder's.
        room: generated tokens that the cache is to hold, at least 1.
        blocks: query and key rows of an attention block; None for what suits each layer on this
            machine.

    Raises:
        FlowjaxError: see `flowjax.edges.edge_mask`.
    """
    table = edge_table(layout, knockouts, layers=config.layers, heads=config.heads)
    layers = live_rows(layout, table)
    read = _union([layers[0].rows, layers[0].sources])
    return Compiled(
        mask=EdgeMask(jnp.asarray(layout.cell), jnp.asarray(table)),
        rows=within(read, np.arange(layout.length)),
        stages=compile_layers(
            layout.cell, table, layers, read, blocks=blocks, width=config.head_dim
        ),
        length=layout.length,
        room=max(room, 1),
    )


def compile_layers(
    cell: Int[np.ndarray, " n"],
    table: Bool[np.ndarray, "layers heads g g"],
    layers: Sequence[LayerRows],
    read: Int[np.ndarray, " i"],
    *,
    width: int,
    blocks: tuple[int, int] | None = None,
    first: int = 0,
) -> tuple[Stage, ...]:
    """The stages of consecutive layers whose rows are known.

    Args:
        cell: group of every position.
        table: allowed edges of these layers.
        layers: what each computes.
        read: positions whose states the first of them is given, ascending.
        width: head size.
        blocks: query and key rows of an attention block; None for what suits each layer.
        first: of these layers in the decoder.
    """
    inputs = [read, *(layer.rows for layer in layers[:-1])]
    shapes = [blocks] * len(layers) if blocks else _shapes(cell, table, inputs, layers, width)
    stages = []
    for start, last in _runs(inputs, layers, shapes):
        some = slice(start, last + 1)
        stages.append(
            _stage(cell, table[some], inputs[start], layers[some], first + start, shapes[start])
        )
    return tuple(stages)


def _shapes(
    cell: Int[np.ndarray, " n"],
    table: Bool[np.ndarray, "layers heads g g"],
    inputs: Sequence[Int[np.ndarray, " _"]],
    layers: Sequence[LayerRows],
    width: int,
) -> list[tuple[int, int]]:
    """Rows of a block that suit each layer."""
    found: dict[tuple[bytes, ...], tuple[int, int]] = {}
    keys = []
    for allowed, given, layer in zip(table, inputs, layers, strict=True):
        key = allowed.tobytes(), given.tobytes(), layer.rows.tobytes()
        if key not in found:
            found[key] = suited_shape(cell, allowed, layer.rows, given, width)
        keys.append(key)
    return [found[key] for key in keys]


def _runs(
    inputs: Sequence[np.ndarray], layers: Sequence[LayerRows], shapes: Sequence[tuple[int, int]]
) -> Iterable[tuple[int, int]]:
    """First and last layer of every stage."""
    first = 0
    for layer in range(1, len(layers) + 1):
        if layer == len(layers) or not (
            np.array_equal(inputs[first], layers[first].rows)
            and np.array_equal(inputs[first], layers[layer].rows)
            and shapes[first] == shapes[layer]
        ):
            yield first, layer - 1
            first = layer


def _stage(
    cell: Int[np.ndarray, " n"],
    table: Bool[np.ndarray, "layers heads g g"],
    inputs: Int[np.ndarray, " i"],
    layers: Sequence[LayerRows],
    first: int,
    block: tuple[int, int],
) -> Stage:
    rows = layers[0].rows
    sources = _union([layer.sources for layer in layers])
    if 0 < len(inputs) - len(sources) <= len(inputs) // SPARE and len(sources):
        sources = inputs  # the same edges: nobody reads the others
    keep = _union([layer.cache for layer in layers])
    maps: dict[bytes, BlockMap] = {}
    if len(sources):
        for allowed in table:
            if (key := allowed.tobytes()) not in maps:
                maps[key] = block_map(
                    cell, allowed, rows, sources, block_q=block[0], block_k=block[1]
                )
    blocks = stack_maps([maps[allowed.tobytes()] for allowed in table]) if maps else None
    return Stage(
        first=first,
        layers=len(layers),
        rows=within(rows, inputs),
        sources=within(sources, inputs),
        row_position=jnp.asarray(rows),
        source_position=jnp.asarray(sources),
        keep=within(keep, sources),
        blocks=jax.tree.map(jnp.asarray, blocks),
        cuts=tuple(_cuts(cell, table, layers, keep, first)),
    )


def _cuts(
    cell: Int[np.ndarray, " n"],
    table: Bool[np.ndarray, "layers heads g g"],
    layers: Sequence[LayerRows],
    keep: Int[np.ndarray, " c"],
    first: int,
) -> Iterable[Cut]:
    last = cell[-1]
    written = np.any(table[:, :, last, last], axis=1)
    offset = 0
    for layer in range(1, len(layers) + 1):
        if (
            layer == len(layers)
            or written[layer] != written[offset]
            or not np.array_equal(layers[layer].cache, layers[offset].cache)
        ):
            position = layers[offset].cache
            yield Cut(
                first=first + offset,
                layers=layer - offset,
                offset=offset,
                take=within(position, keep),
                position=jnp.asarray(position),
                written=bool(written[offset]),
            )
            offset = layer


def _union(positions: Sequence[Int[np.ndarray, " _"]]) -> Int[np.ndarray, " _"]:
    return np.unique(np.concatenate(positions)).astype(np.int32)


def within(
    positions: Int[np.ndarray, " k"], among: Int[np.ndarray, " n"]
) -> Int[Array, " k"] | None:
    """Where ascending positions are among others; None where they are all of them."""
    if len(positions) == len(among):
        return None
    return jnp.asarray(np.searchsorted(among, positions), jnp.int32)
