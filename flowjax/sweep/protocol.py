"""What a sweep asks: which edges, in which windows of layers."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowjax.edges import EDGE_SETS, Edge, Knockout, edges_of, parse_edges, windows
from flowjax.errors import FlowjaxError


@dataclass(frozen=True)
class SweepEdge:
    """Edges removed together: one line of a figure.

    edge_set: the name it is reported under.
    head: the head they are removed in; None for all.
    """

    edge_set: str
    edges: tuple[Edge, ...]
    head: int | None = None


@dataclass(frozen=True)
class Cell:
    """One knockout of a sweep and where it belongs in the results."""

    edge: SweepEdge
    centre: int
    width: int
    style: str
    knockout: Knockout


@dataclass(frozen=True)
class Protocol:
    """Every window of one width and style, for every edge."""

    edges: tuple[SweepEdge, ...]
    width: int = 9
    style: str = "center"

    def cells(self, layers: int) -> tuple[Cell, ...]:
        """Every knockout of the sweep on a model of `layers` layers.

        Raises:
            FlowjaxError: a width or style that the model does not allow.
        """
        return tuple(
            Cell(
                edge,
                centre,
                self.width,
                self.style,
                Knockout(edge.edges, window, None if edge.head is None else (edge.head,)),
            )
            for edge in self.edges
            for centre, window in enumerate(windows(self.width, self.style, layers))
        )


def protocol(
    edge_sets: Sequence[str] = (),
    edges: Sequence[str] = (),
    *,
    width: int = 9,
    style: str = "center",
) -> Protocol:
    """The sweep over the paper's edge sets and the user's own edges.

    Args:
        edge_sets: names from `EDGE_SETS`; all of them where neither argument says anything.
        edges: texts such as `"frame_0->question_stem"`, reported as edge set `custom`.
        width: layers of a window.
        style: one of `flowjax.edges.STYLES`.

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
    return Protocol(lines, width, style)
