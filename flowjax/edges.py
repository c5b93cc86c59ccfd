"""Attention edges: which target (query) position may read which source (key) position.

Edges are cut between token groups, so a mask is small: the group of every position and one table
`allowed[target group, source group]`. Causality is implied by position and never stored::

                 source   system  video  question  last
    target system            1      1       1       1
           video             1      1       1       1
           question          1      0       1       1      <- video -> question is cut
           last              1      1       1       1

Leading axes of the table are layers and heads (1 where all heads agree); `vmap` adds windows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout

NOBODY = np.iinfo(np.int32).max
"""Position of a source row that is not there: after every target."""


@runtime_checkable
class Mask(Protocol):
    """What attention needs of a mask: its table with leading axes, and the rows of one layer."""

    @property
    def allowed(self) -> Bool[Array, "..."] | Float[Array, "..."]:
        """The table; its first axis is layers while it covers a whole decoder."""
        ...

    def at(self, layer: int | Int[Array, ""]) -> "Mask":
        """The mask of one layer."""
        ...

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Bool[Array, "heads q k"] | Float[Array, "heads q k"]:
        """Whether target position may read source position, causality included.

        Numbers instead of booleans say how much of each edge there is (see `GatedMask`). A source
        position past the end is read by nobody: it marks a row that is not there.
        """
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class EdgeMask:
    """Edges between groups.

    group: int32 [n], the group index of each position.
    allowed: bool [..., g, g], target group x source group. For a decoder the leading axes are
        [layers, heads or 1]; `at` takes the layer axis away.
    """

    group: Int[Array, " n"]
    allowed: Bool[Array, "*axes g g"]

    def __and__(self, other: "Mask") -> "Mask":
        """The edges that both allow."""
        return both(self, other)

    def at(self, layer: int | Int[Array, ""]) -> "EdgeMask":
        """The mask of one layer: bool [heads or 1, g, g]."""
        return EdgeMask(self.group, self.allowed[layer])

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Bool[Array, "heads q k"]:
        """Allowed edges into `targets` from `sources` (absolute positions), causality included."""
        target_group = jnp.take(self.group, targets, mode="clip")
        source_group = jnp.take(self.group, sources, mode="clip")
        by_target = jnp.take(self.allowed, target_group, axis=-2)
        table = jnp.take(by_target, source_group, axis=-1)
        return table & (targets[:, None] >= sources[None, :])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DenseMask:
    """Edges between positions, for masks that groups cannot express.

    allowed: bool [..., n, n], target x source; leading axes as in `EdgeMask`. Entries above the
        diagonal are ignored: causality always holds.
    """

    allowed: Bool[Array, "*axes n n"]

    def __and__(self, other: "Mask") -> "Mask":
        """The edges that both allow."""
        return both(self, other)

    def at(self, layer: int | Int[Array, ""]) -> "DenseMask":
        """The mask of one layer: bool [heads or 1, n, n]."""
        return DenseMask(self.allowed[layer])

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Bool[Array, "heads q k"]:
        """Allowed edges into `targets` from `sources` (absolute positions), causality included."""
        table = self.allowed.at[..., targets[:, None], sources[None, :]].get(mode="clip")
        return table & (targets[:, None] >= sources[None, :])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class BothMasks:
    """The edges that two masks allow, of one of which `allowed` may be of another form."""

    first: Mask
    second: Mask

    @property
    def allowed(self) -> Bool[Array, "..."] | Float[Array, "..."]:
        """The first mask's table; both have the same layers."""
        return self.first.allowed

    def __and__(self, other: "Mask") -> "Mask":
        """The edges that all allow."""
        return BothMasks(self, other)

    def at(self, layer: int | Int[Array, ""]) -> "BothMasks":
        """The mask of one layer."""
        return BothMasks(self.first.at(layer), self.second.at(layer))

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Bool[Array, "heads q k"] | Float[Array, "heads q k"]:
        """Edges that both allow, or the product of their gates."""
        first, second = self.first.rows(targets, sources), self.second.rows(targets, sources)
        if first.dtype == second.dtype == bool:
            return first & second
        return first * second


def both(first: Mask, second: Mask) -> Mask:
    """The edges that two masks of the same positions allow; one table where their groups agree."""
    if isinstance(first, EdgeMask) and isinstance(second, EdgeMask) and first.group is second.group:
        return EdgeMask(first.group, first.allowed & second.allowed)
    if isinstance(first, DenseMask) and isinstance(second, DenseMask):
        return DenseMask(first.allowed & second.allowed)
    return BothMasks(first, second)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class GatedMask:
    """Edges between groups, each as strong as its gate: what a knockout is the end of.

    A gate multiplies the exponential of its edges' scores before they are normalised. At 1 the edge
    is as it was, at 0 it is cut exactly as `EdgeMask` cuts it, and between them attention is a
    smooth function of the gate.

    group: int32 [n], the group index of each position.
    allowed: float32 [..., g, g], gates of at least 0, target group x source group; leading axes
        as in `EdgeMask`.
    """

    group: Int[Array, " n"]
    allowed: Float[Array, "*axes g g"]

    def at(self, layer: int | Int[Array, ""]) -> "GatedMask":
        """The mask of one layer: float32 [heads or 1, g, g]."""
        return GatedMask(self.group, self.allowed[layer])

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Float[Array, "heads q k"]:
        """Gates of the edges into `targets` from `sources`; 0 where causality forbids them."""

        def member(positions: Array) -> Array:
            group = jnp.take(self.group, positions, mode="clip")
            return jax.nn.one_hot(group, self.allowed.shape[-1])

        # As products, because their gradient is products too, and that of a gather a slow scatter.
        gates = jnp.einsum(
            "qt,hts,ks->hqk",
            member(targets),
            self.allowed,
            member(sources),
            precision=jax.lax.Precision.HIGHEST,
        )
        return jnp.where(targets[:, None] >= sources[None, :], gates, 0.0)


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


def causal_mask(layers: int, group: Int[Array, " n"]) -> EdgeMask:
    """No edge removed: bool [layers, 1, 1, 1], every position in group 0."""
    return EdgeMask(jnp.zeros_like(group), jnp.ones((layers, 1, 1, 1), bool))


def causal_edges(first_row: int, length: int) -> int:
    """Edges that causality allows into rows `first_row` to `length - 1`, diagonal included."""
    return (length * (length + 1) - first_row * (first_row + 1)) // 2


def edge_counts(layout: TokenLayout) -> Int[np.ndarray, "g g"]:
    """Causal edges (diagonal included) between cells: int64 [g, g], target x source."""
    is_cell = np.eye(len(layout.cells), dtype=np.int64)[layout.cell]
    return is_cell.T @ np.cumsum(is_cell, axis=0)


def count_edges(layout: TokenLayout, table: Bool[np.ndarray, "g g"]) -> int:
    """Causal edges (diagonal included) of one head whose table entry is true."""
    return int(edge_counts(layout)[table].sum())


def dense(layout: TokenLayout, table: Bool[np.ndarray, "... g g"]) -> Bool[np.ndarray, "... n n"]:
    """A group table written out over positions, causality included."""
    causal = np.tri(layout.length, dtype=bool)
    return table[..., layout.cell[:, None], layout.cell[None, :]] & causal


STYLES = ("center", "inverse", "top_down", "bottom_up")


def window_layers(centre: int, width: int, style: str, layers: int) -> tuple[int, ...]:
    """The layers of one window (0-based), as the reference defines them.

    `center` is `[centre - width // 2, centre + ceil(width / 2))` clipped to the model, so an even
    width reaches one layer further to the left; `inverse` is its complement; `top_down` is
    `centre` and all later layers; `bottom_up` is `centre` and all earlier ones (the last two do
    not read `width`).

    Raises:
        FlowjaxError: a centre outside the model, a width below 1 or above the model's depth
            (where it is read), or an unknown style.
    """
    if style not in STYLES:
        raise FlowjaxError(f"window style {style!r}: choose one of {', '.join(STYLES)}")
    if not 0 <= centre < layers:
        raise FlowjaxError(f"window centre {centre}: the model's layers are 0 to {layers - 1}")
    if width < 1:
        raise FlowjaxError(f"window width {width}: give at least 1 layer")
    if style == "top_down":
        return tuple(range(centre, layers))
    if style == "bottom_up":
        return tuple(range(centre + 1))
    if width > layers:
        raise FlowjaxError(f"window width {width}: the model has only {layers} layers")
    inside = range(max(0, centre - width // 2), min(layers, centre + (width + 1) // 2))
    if style == "center":
        return tuple(inside)
    return tuple(layer for layer in range(layers) if layer not in inside)


def windows(width: int, style: str, layers: int) -> tuple[tuple[int, ...], ...]:
    """One window per centre: the layers of each (see `window_layers`)."""
    return tuple(window_layers(centre, width, style, layers) for centre in range(layers))


EDGE_SETS: dict[str, tuple[str, ...]] = {
    "cross-frame": (CROSS_FRAME,),
    "vql-to-ql": ("video->question", "video->last", "question->last", "last->last"),
    "question-and-options-to-last": (
        "question_stem->last",
        "true_option->last",
        "false_options->last",
    ),
    "vq-to-true-opt": (
        "video->question_stem",
        "question_stem->true_option",
        "video->true_option",
    ),
}
"""The paper's edge sets, by the names of its reference code: the edges cut one at a time."""


def edges_of(name: str) -> tuple[str, ...]:
    """The edges of one of the paper's edge sets.

    Raises:
        FlowjaxError: no such edge set.
    """
    if name not in EDGE_SETS:
        raise FlowjaxError(f"edge set {name!r}: choose from {', '.join(EDGE_SETS)}")
    return EDGE_SETS[name]


def _check_range(knockout: str, what: str, values: Sequence[int], count: int) -> None:
    for value in values:
        if not 0 <= value < count:
            raise FlowjaxError(
                f"knockout {knockout!r}: {what} {value} does not exist; "
                f"the model's {what}s are 0 to {count - 1}"
            )
