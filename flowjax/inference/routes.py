"""Routes: edge sets that stay open as long as a prompt needs them, as a few static programs.

Edge sets close one after the other, in the order in which information flows: edges across frames,
edges out of the video, edges out of the question. A route says before which layer each closes. The
layers between two decisions are a *segment*; a segment and the number of closed sets is one static
program, whatever was decided before, so that there are (sets + 1) programs a segment for all routes
together and none is compiled for a single sample::

    layers        0-3       4-7       8-11      12-15
    all open      [0, 0]    [0, 1]    [0, 2]    [0, 3]
    video closed            [1, 1]    [1, 2]    [1, 3]      from any one to those right of it,
                                                            in its line or below

A segment computes the rows that are live if nothing more closes. What closes at a layer can take
rows away from that layer on, since nothing reads them any more; the layer before computed them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.edges import Edge, Knockout, edge_counts, edge_table
from flowjax.errors import FlowjaxError
from flowjax.inference.compile import Compiled, Stage, compile_layers, within
from flowjax.inference.live import LayerRows, live_rows
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeMask
from flowjax.models.decoder import DecoderConfig
from flowjax.padding import GROUP_STEP, round_up

SETS = ("cross_frame", "video", "question")
"""Edge sets in the order in which they close.

`cross_frame`: from a frame into a later one. `video`: everything that reads video, so that its rows
die. `question`: everything that reads question or instruction.
"""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Probe:
    """Where the attention along an edge set is seen.

    rows: int32 [r], among a stage's computed rows: the last frame's, the text's after the video, or
        the last position.
    reads: float32 [s], 1 where a source of the stage is one of the set's.
    """

    rows: Int[Array, " r"]
    reads: Float[Array, " s"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Segment:
    """Layers between two decisions with some sets closed.

    stages: of its layers.
    probes: of the sets that may close after it, in their order; None where nothing reads one.
    last: its last layer.
    """

    stages: tuple[Stage, ...]
    probes: tuple[Probe | None, ...]
    last: int = field(metadata={"static": True})


@dataclass(frozen=True, eq=False)
class Routes:
    """The programs of one prompt layout; made on the host when they are first needed, and kept.

    layout: the prompt's token groups.
    tables: bool [layers, heads or 1, g, g], allowed edges with 0, 1, .. sets closed throughout.
    rows: what every layer computes under each table.
    decisions: layers, ascending, before which sets may close.
    """

    layout: TokenLayout
    config: DecoderConfig
    tables: tuple[Bool[np.ndarray, "layers heads g g"], ...]
    rows: tuple[tuple[LayerRows, ...], ...]
    decisions: tuple[int, ...]
    room: int
    blocks: tuple[int, int] | None

    @cached_property
    def segments(self) -> dict[tuple[int, int], Segment]:
        """Those made so far, by the number of closed sets and the segment."""
        return {}

    @cached_property
    def ways(self) -> dict[tuple[int, ...], Compiled]:
        """Those routes taken so far, by the number of closed sets in every segment."""
        return {}

    @cached_property
    def grounds(self) -> tuple[Compiled, ...]:
        """Mask and length under each table, with no stages."""
        cell = jnp.asarray(self.layout.cell)
        masks = [EdgeMask(cell, jnp.asarray(table)) for table in self.tables]
        return tuple(Compiled(mask, None, (), self.layout.length, self.room) for mask in masks)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First layer of every segment, and the first after it."""
        return list(itertools.pairwise((0, *self.decisions, self.config.layers)))

    def read(self, closed: int, segment: int) -> Int[np.ndarray, " i"]:
        """Positions whose states a segment is given."""
        first = self.rows[closed][self.bounds[segment][0]]
        return np.union1d(first.rows, first.sources).astype(np.int32)

    def step(self, before: int, closed: int, segment: int) -> Int[Array, " i"] | None:
        """Which rows of the segment before go on, when so many sets are closed there and here."""
        if not segment:
            return within(self.read(closed, 0), np.arange(self.layout.length))
        end = self.bounds[segment][0] - 1
        return within(self.read(closed, segment), self.rows[before][end].rows)

    def segment(self, closed: int, index: int) -> Segment:
        """One of the static programs."""
        made = self.segments
        if (closed, index) not in made:
            first, end = self.bounds[index]
            some = self.rows[closed][first:end]
            stages = compile_layers(
                self.layout.cell,
                self.tables[closed][first:end],
                some,
                self.read(closed, index),
                blocks=self.blocks,
                width=self.config.head_dim,
                first=first,
            )
            open_sets = SETS[closed:] if end < self.config.layers else ()
            probes = tuple(_probe(self.layout, name, stages[-1]) for name in open_sets)
            made[closed, index] = Segment(stages, probes, end - 1)
        return made[closed, index]

    def edges(self, closed: int, layer: int) -> int:
        """Attention scores that a layer needs under one of the tables, over all heads."""
        is_cell = np.eye(len(self.layout.cells), dtype=np.int64)[self.layout.cell]
        rows, table = self.rows[closed][layer].rows, self.tables[closed][layer]
        counts = is_cell[rows].T @ np.cumsum(is_cell, axis=0)[rows]
        return int((table * counts).sum()) * (self.config.heads // len(table))

    def table(self, way: Sequence[int]) -> Bool[np.ndarray, "layers heads g g"]:
        """Allowed edges of a route, given the number of closed sets in every segment."""
        parts = zip(way, self.bounds, strict=True)
        return np.concatenate([self.tables[closed][slice(*of)] for closed, of in parts])

    def padded_table(self, way: Sequence[int]) -> Bool[np.ndarray, "layers heads g g"]:
        """`table` with as many cells as prompts that share programs have."""
        table = self.table(way)
        more = round_up(table.shape[-1], GROUP_STEP) - table.shape[-1]
        return np.pad(table, ((0, 0), (0, 0), (0, more), (0, more)), constant_values=True)

    def way(self, way: tuple[int, ...]) -> Compiled:
        """What decoding goes on with after a route: its mask, and its segments' cuts."""
        if way not in self.ways:
            segments = [self.segment(closed, index) for index, closed in enumerate(way)]
            stages = itertools.chain.from_iterable(segment.stages for segment in segments)
            mask = EdgeMask(jnp.asarray(self.layout.cell), jnp.asarray(self.table(way)))
            self.ways[way] = Compiled(mask, None, tuple(stages), self.layout.length, self.room)
        return self.ways[way]


def compile_routes(
    layout: TokenLayout,
    knockouts: Sequence[Knockout],
    config: DecoderConfig,
    *,
    decisions: Sequence[int],
    room: int = 1,
    blocks: tuple[int, int] | None = None,
) -> Routes:
    """Routes of a prompt layout; reads no parameter.

    Args:
        layout: the prompt's token groups.
        knockouts: what is cut in any case; none for all edges.
        config: the decoder's.
        decisions: layers, each from 1 to layers - 1, before which sets may close.
        room: generated tokens that the cache is to hold, at least 1.
        blocks: query and key rows of an attention block; None for what suits each layer.

    Raises:
        FlowjaxError: another layer, or see `flowjax.edges.edge_mask`.
    """
    for layer in decisions:
        if not 1 <= layer < config.layers:
            raise FlowjaxError(
                f"decision before layer {layer}: sets close before layers 1 to {config.layers - 1}"
            )
    knockouts, tables = list(knockouts), []
    for name in ("", *SETS):
        if name and (edges := _edges(layout, name)):
            knockouts.append(Knockout(edges, range(config.layers)))
        tables.append(edge_table(layout, knockouts, layers=config.layers, heads=config.heads))
    rows = tuple(live_rows(layout, table) for table in tables)
    return Routes(
        layout,
        config,
        tuple(tables),
        rows,
        tuple(sorted(set(decisions))),
        max(room, 1),
        blocks,
    )


def _edges(layout: TokenLayout, name: str) -> tuple[Edge, ...]:
    """What closes with a set, of edges that the layout has."""
    counts = edge_counts(layout)
    if name == "cross_frame":
        edges = [Edge.CROSS_FRAME]
    else:
        sources = ["video"] if name == "video" else _question(layout)
        edges = [Edge(source, cell) for source in sources for cell in layout.cells]
    return tuple(edge for edge in edges if counts[edge.cut(layout)].any())


def _question(layout: TokenLayout) -> list[str]:
    return [name for name in ("question", "instruction") if name in layout.groups]


def ends_of(layout: TokenLayout, name: str) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " s"]]:
    """Positions at which a set's attention is seen, and those it reads there."""
    video, last = layout.positions("video"), layout.length - 1
    if name == "cross_frame":
        newest = layout.cell == layout.cell[video[-1]]
        return np.flatnonzero(newest), video[~newest[video]]
    if name == "video":
        return np.arange(video[-1] + 1, last + 1), video
    question = np.concatenate([layout.positions(group) for group in _question(layout)])
    return np.array([last]), question


def _probe(layout: TokenLayout, name: str, stage: Stage) -> Probe | None:
    """Where a set is seen in a stage; None where no computed row can read it."""
    targets, sources = ends_of(layout, name)
    own = np.flatnonzero(np.isin(stage.row_position, targets))
    reads = np.isin(stage.source_position, sources)
    if not len(own) or not reads.any():
        return None
    return Probe(jnp.asarray(own, jnp.int32), jnp.asarray(reads, jnp.float32))
