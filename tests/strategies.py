"""Random layouts and knockouts for property tests."""

from hypothesis import strategies as st

from flowjax.edges import Edge, Knockout, count_edges
from flowjax.layer_windows import STYLES, window_layers
from flowjax.layout import TokenLayout


@st.composite
def layouts(draw, length=48):
    """A layout in the order of a real prompt, with at least one position per cell.

    Always of the same length, so that examples share compiled code.
    """

    def some(name):
        return [name] * draw(st.integers(1, 4))

    names = []
    for index in range(draw(st.integers(2, 3))):
        names += some(f"frame_{index}")
    names += some("instruction") + some("question_format") + some("question_stem")
    letters = "ABC"[: draw(st.integers(2, 3))]
    for letter in letters:
        names += ["question_format", *some(f"option_{letter}")]
    names += [*some("instruction"), "last"]
    system = ["system"] * (length - len(names))
    return TokenLayout.from_cells(system + names, f"option_{draw(st.sampled_from(letters))}")


@st.composite
def knockouts(draw, layout, layers, heads):
    """A knockout that removes at least one edge."""
    groups = [*layout.groups]
    edges = st.one_of(
        st.just(Edge.CROSS_FRAME),
        st.builds(Edge, st.sampled_from(groups), st.sampled_from(groups)),
    ).filter(lambda edge: count_edges(layout, edge.cut(layout)) > 0)
    chosen = tuple(draw(st.lists(edges, min_size=1, max_size=3)))
    style = draw(st.sampled_from(STYLES))
    width = draw(st.integers(1, layers))
    window = window_layers(draw(st.integers(0, layers - 1)), width, style, layers)
    if not window:
        window = (draw(st.integers(0, layers - 1)),)
    some_heads = st.lists(st.integers(0, heads - 1), min_size=1, max_size=heads, unique=True)
    of_heads = draw(st.one_of(st.none(), some_heads.map(tuple)))
    return Knockout(chosen, window, of_heads)
