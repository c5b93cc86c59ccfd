"""Attention edges by name, knockouts that cut them, and the tables they leave for a mask."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeMask

CROSS_FRAME = "cross_frame"
"""How `Edge.CROSS_FRAME` is written."""


@dataclass(frozen=True)
class Edge:
    """All attention from target group to source group: `source -> target`.

    across_frames: only what leads from a frame into a later one; see `CROSS_FRAME`.
    """

    source: str
    target: str
    across_frames: bool = False

    CROSS_FRAME: ClassVar["Edge"]
    """Every edge from an earlier frame into a later one; written `cross_frame`."""

    @classmethod
    def parse(cls, text: str) -> "Edge":
        """Read `"source->target"`, or `"cross_frame"`.

        Raises:
            FlowjaxError: the text has another form.
        """
        if text.strip() == CROSS_FRAME:
            return cls.CROSS_FRAME
        parts = [part.strip() for part in text.split("->")]
        if len(parts) != 2 or not all(parts):
            raise FlowjaxError(
                f"edge {text!r}: write it as 'source->target', for example 'video->question', "
                f"or '{CROSS_FRAME}'"
            )
        return cls(parts[0], parts[1])

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return CROSS_FRAME if self.across_frames else f"{self.source}->{self.target}"

    def cut(self, layout: TokenLayout) -> Bool[np.ndarray, "g g"]:
        """The cut entries of the table: bool [g, g], target cell x source cell.

        Raises:
            FlowjaxError: the layout has no such group.
        """
        cut = np.zeros((len(layout.cells),) * 2, bool)
        targets, sources = layout.cells_of(self.target), layout.cells_of(self.source)
        cut[np.ix_(targets, sources)] = True
        if self.across_frames:
            np.fill_diagonal(cut, False)
        return cut


Edge.CROSS_FRAME = Edge("video", "video", across_frames=True)


@dataclass(frozen=True, init=False)
class Knockout:
    """Edges removed in a set of layers, in all heads or in those named.

    edges: removed together.
    layers: 0-based.
    heads: 0-based; None for all.
    """

    edges: tuple[Edge, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...] | None

    def __init__(
        self,
        edges: str | Iterable[Edge],
        layers: Iterable[int],
        heads: Iterable[int] | None = None,
    ) -> None:
        """Make a knockout.

        Args:
            edges: as text, such as `"video->question+video->last"`, or read already.
            layers: 0-based.
            heads: 0-based; None for all.

        Raises:
            FlowjaxError: text of another form; no edge; or layers or heads that are negative,
                given twice or none.
        """
        read = parse_edges(edges) if isinstance(edges, str) else tuple(edges)
        if not read:
            raise FlowjaxError("a knockout needs an edge, such as 'video->last'")
        object.__setattr__(self, "edges", read)
        object.__setattr__(self, "layers", distinct("layer", layers, self.name))
        of = None if heads is None else distinct("head", heads, self.name)
        object.__setattr__(self, "heads", of)

    @property
    def name(self) -> str:
        """The edges as text, joined by `+`."""
        return "+".join(map(str, self.edges))


def distinct(what: str, values: Iterable[int], name: str) -> tuple[int, ...]:
    """Numbers from 0, each once and at least one.

    Raises:
        FlowjaxError: there is none, one is negative, or one comes twice.
    """
    numbers = tuple(int(value) for value in values)
    if not numbers:
        raise FlowjaxError(f"{name!r}: no {what} is given; name at least one")
    if min(numbers) < 0:
        raise FlowjaxError(f"{name!r}: {what} {min(numbers)}: {what}s are counted from 0")
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise FlowjaxError(f"{name!r}: {what} {twice} is given twice")
    return numbers


def parse_edges(text: str) -> tuple[Edge, ...]:
    """Edges removed together, joined by `+`: `"video->question+video->last"`."""
    return tuple(Edge.parse(part) for part in text.split("+"))


def edge_mask(
    layout: TokenLayout,
    knockouts: Iterable[Knockout],
    *,
    layers: int,
    heads: int,
) -> EdgeMask:
    """The mask of a decoder with every edge of every knockout removed.

    Args:
        layout: the prompt's token groups.
        knockouts: applied together; an edge removed twice is removed once.
        layers: decoder layers.
        heads: query heads; the table has a head axis of this size only if a knockout names heads.

    Returns:
        An `EdgeMask` with `allowed` bool [layers, 1 or heads, g, g].

    Raises:
        FlowjaxError: a layer, head or group that does not exist, or a knockout that removes no
            causal edge at all.
    """
    allowed = edge_table(layout, knockouts, layers=layers, heads=heads)
    return EdgeMask(jnp.asarray(layout.cell, jnp.int32), jnp.asarray(allowed))


def edge_table(
    layout: TokenLayout, knockouts: Iterable[Knockout], *, layers: int, heads: int
) -> Bool[np.ndarray, "layers heads g g"]:
    """The table of `edge_mask` on the host: bool [layers, 1 or heads, g, g]."""
    knockouts = tuple(knockouts)
    head_axis = heads if any(knockout.heads is not None for knockout in knockouts) else 1
    allowed = np.ones((layers, head_axis, len(layout.cells), len(layout.cells)), bool)
    for knockout in knockouts:
        chosen = range(head_axis) if knockout.heads is None else knockout.heads
        _check_range(knockout.name, "layer", knockout.layers, layers)
        _check_range(knockout.name, "head", chosen, heads)
        allowed[np.ix_(knockout.layers, list(chosen))] &= ~cut_table(layout, knockout)
    return allowed


def cut_table(layout: TokenLayout, knockout: Knockout) -> Bool[np.ndarray, "g g"]:
    """What a knockout cuts in its layers: bool [g, g], target cell x source cell.

    Raises:
        FlowjaxError: a group that does not exist, or a knockout that removes no causal edge.
    """
    cut = np.zeros((len(layout.cells),) * 2, bool)
    for edge in knockout.edges:
        cut |= edge.cut(layout)
    if count_edges(layout, cut) == 0:
        raise FlowjaxError(
            f"knockout {knockout.name!r} removes no edge: no target position comes at or after a "
            "source position"
        )
    return cut


def causal_edges(first_row: int, length: int) -> int:
    """Edges that causality allows into rows `first_row` to `length - 1`, diagonal included."""
    return (length * (length + 1) - first_row * (first_row + 1)) // 2


@functools.lru_cache(maxsize=4)
def edge_counts(layout: TokenLayout) -> Int[np.ndarray, "g g"]:
    """Causal edges (diagonal included) between cells: int64 [g, g], target x source, read-only."""
    cells = np.arange(len(layout.cells))
    until = np.cumsum(layout.cell[:, None] == cells, axis=0, dtype=np.int64)
    order = np.argsort(layout.cell, kind="stable")
    counts = np.add.reduceat(until[order], np.searchsorted(layout.cell[order], cells), axis=0)
    counts.flags.writeable = False
    return counts


def count_edges(layout: TokenLayout, table: Bool[np.ndarray, "g g"]) -> int:
    """Causal edges (diagonal included) of one head whose table entry is true."""
    return int(edge_counts(layout)[table].sum())


def dense(layout: TokenLayout, table: Bool[np.ndarray, "... g g"]) -> Bool[np.ndarray, "... n n"]:
    """A group table written out over positions, causality included."""
    causal = np.tri(layout.length, dtype=bool)
    return table[..., layout.cell[:, None], layout.cell[None, :]] & causal


def _check_range(knockout: str, what: str, values: Sequence[int], count: int) -> None:
    for value in values:
        if not 0 <= value < count:
            raise FlowjaxError(
                f"knockout {knockout!r}: {what} {value} does not exist; "
                f"the model's {what}s are 0 to {count - 1}"
            )
