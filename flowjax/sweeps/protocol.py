"""What a sweep asks: which edges, in which heads, in which windows of layers."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flowjax.edges import Edge, Knockout, parse_edges
from flowjax.errors import FlowjaxError
from flowjax.layer_windows import EDGE_SETS, edges_of, windows
from flowjax.layout import TokenLayout
from flowjax.patches import Patch

TOKEN = re.compile(r"(?P<group>[^\[\]]+)\[(?P<index>\*|\d+)\]")
"""A group's tokens one by one: `question_stem[*]`, or one of them: `question_stem[3]`."""

PATCH = "patch"
"""The edge set under which patches are reported; their `edge` is site and positions."""


@dataclass(frozen=True)
class SweepEdge:
    """Edges removed together, as the user named them.

    edge_set: the name they are reported under.
    edges: may name tokens of a group.
    """

    edge_set: str
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Cell:
    """One knockout or patch of a sweep, and where it belongs in the results.

    head: -1 where all heads are cut.
    centre: the window's centre layer, 0-based.
    """

    edge_set: str
    head: int
    centre: int
    knockout: Knockout | Patch


@dataclass(frozen=True)
class Protocol:
    """Every window of one width and style, for every edge.

    heads: every one cut on its own; "all" for all of the model's; None cuts all heads at once.
    patches: put in every window, one after another.
    centres: of the windows, 0-based; None for every layer.
    """

    edges: tuple[SweepEdge, ...]
    width: int = 9
    style: str = "center"
    heads: tuple[int, ...] | Literal["all"] | None = None
    patches: tuple[Patch, ...] = ()
    centres: tuple[int, ...] | None = None

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """The layout with a cell for every token of the groups whose tokens an edge names.

        Raises:
            FlowjaxError: a group or token that does not exist.
        """
        names = [
            name
            for line in self.edges
            for edge in line.edges
            for name in (edge.source, edge.target)
        ]
        groups = [match["group"] for name in names if (match := TOKEN.fullmatch(name))]
        return layout.split(dict.fromkeys(groups)) if groups else layout

    def cells(self, layout: TokenLayout, layers: int, heads: int) -> tuple[Cell, ...]:
        """Every knockout and patch of the sweep.

        Args:
            layout: what `layout` gave.
            layers, heads: of the model.

        Raises:
            FlowjaxError: a width, style, head or centre that the model does not have.
        """
        one_by_one: list[tuple[int, ...] | None] = [None]
        if self.heads is not None:
            one_by_one = [(head,) for head in (range(heads) if self.heads == "all" else self.heads)]
        numbered = list(enumerate(windows(self.width, self.style, layers)))
        if self.centres is not None:
            if max(self.centres) >= layers:
                raise FlowjaxError(
                    f"--centres {max(self.centres)}: the model's layers are 0 to {layers - 1}"
                )
            numbered = [numbered[centre] for centre in self.centres]
        cut = [
            Cell(
                line.edge_set,
                -1 if chosen is None else chosen[0],
                centre,
                Knockout(edges, window, chosen),
            )
            for line in self.edges
            for edges in expand(line.edges, layout)
            for chosen in one_by_one
            for centre, window in numbered
        ]
        patched = [
            Cell(PATCH, -1, centre, patch.in_layers(window))
            for patch in self.patches
            for centre, window in numbered
        ]
        return (*cut, *patched)


def expand(edges: tuple[Edge, ...], layout: TokenLayout) -> list[tuple[Edge, ...]]:
    """The edges once for every choice of the tokens that `[*]` stands for.

    A group named twice in the edges takes the same token in both places.
    """
    names = {name for edge in edges for name in (edge.source, edge.target)}
    starred = sorted(
        match["group"]
        for name in names
        if (match := TOKEN.fullmatch(name)) and match["index"] == "*"
    )
    choices = [range(len(layout.positions(group))) for group in starred]
    expanded = []
    for indices in itertools.product(*choices):
        token = {
            f"{group}[*]": f"{group}[{index}]"
            for group, index in zip(starred, indices, strict=True)
        }
        expanded.append(
            tuple(
                dataclasses.replace(
                    edge,
                    source=token.get(edge.source, edge.source),
                    target=token.get(edge.target, edge.target),
                )
                for edge in edges
            )
        )
    return expanded


def protocol(
    edge_sets: Sequence[str] = (),
    edges: Sequence[str] = (),
    *,
    width: int = 9,
    style: str = "center",
    heads: str | None = None,
    centres: str | None = None,
) -> Protocol:
    """The sweep over the paper's edge sets and the user's own edges.

    Args:
        edge_sets: names from `EDGE_SETS`; all of them where neither argument says anything.
        edges: texts such as `"frame_0->question_stem"`, reported as edge set `custom`.
        width: layers of a window.
        style: one of `flowjax.layer_windows.STYLES`.
        heads: `"all"`, or numbers joined by commas: each head is cut on its own.
        centres: see `parse_centres`.

    Raises:
        FlowjaxError: an unknown edge set, an edge of another form, or one given twice.
    """
    if not edge_sets and not edges:
        edge_sets = tuple(EDGE_SETS)
    chosen = [(name, text) for name in edge_sets for text in edges_of(name)]
    chosen += [("custom", text) for text in edges]
    lines = tuple(SweepEdge(name, parse_edges(text)) for name, text in chosen)
    if len(set(lines)) < len(lines):
        raise FlowjaxError("an edge or edge set is given twice")
    numbers = None if centres is None else parse_centres(centres)
    return Protocol(lines, width, style, parse_heads(heads), centres=numbers)


def fitting_width(layers: int) -> int:
    """Layers of a window where none are asked for: the paper's 9, or less in a shallow model.

    The largest odd number up to 9 and half of the layers.
    """
    half = max(1, layers // 2)
    return min(9, half - 1 + half % 2)


def parse_heads(text: str | None) -> tuple[int, ...] | Literal["all"] | None:
    """Read `"all"` or `"0,3,5"`.

    Raises:
        FlowjaxError: the text has another form, or a head comes twice.
    """
    if text is None or text == "all":
        return text
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise FlowjaxError(f"--heads {text!r}: give 'all', or different numbers such as 0,3,5")
    return tuple(int(part) for part in parts)


def parse_centres(text: str) -> tuple[int, ...]:
    """Read layers such as `"3,7,11"` or `"4-9"`, ends included, counted from 0; ascending.

    Raises:
        FlowjaxError: the text has another form, or a layer comes twice.
    """
    layers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        span = range(int(match[1]), int(match[2] or match[1]) + 1) if match else ()
        if not span:
            raise FlowjaxError(f"--centres {text!r}: write layers from 0, such as 3,7,11 or 4-9")
        layers += span
    if len(set(layers)) < len(layers):
        raise FlowjaxError(f"--centres {text!r}: a layer is given twice")
    return tuple(sorted(layers))


def token_named(edges: Sequence[Edge]) -> list[str]:
    """The single tokens that edges name, such as `question_stem[3]`, each once."""
    names = [name for edge in edges for name in (edge.source, edge.target)]
    return [name for name in dict.fromkeys(names) if TOKEN.fullmatch(name)]
