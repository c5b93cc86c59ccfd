import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowjax.edges import Edge, Knockout, count_edges, cut_table, dense, edge_mask, parse_edges
from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout
from flowjax.masks import DenseMask, EdgeMask
from tests.strategies import knockouts, layouts

NAMES = ["system"] * 2 + ["frame_0"] * 3 + ["frame_1"] * 3 + ["frame_2"] * 3
NAMES += ["question_stem"] * 2 + ["option_A"] * 2 + ["option_B"] + ["instruction"] + ["last"]
LAYOUT = TokenLayout.from_cells(NAMES, "option_A")


def by_hand(layout, edge):
    """Cut positions from the definition: target x source."""
    cut = np.zeros((layout.length, layout.length), bool)
    if str(edge) == "cross_frame":
        frames = [layout.positions(name) for name in layout.cells if name.startswith("frame_")]
        for later in range(len(frames)):
            for earlier in range(later):
                cut[np.ix_(frames[later], frames[earlier])] = True
        return cut
    cut[np.ix_(layout.positions(edge.target), layout.positions(edge.source))] = True
    return cut & np.tri(layout.length, dtype=bool)


@given(st.data())
def test_group_table_equals_positions_from_the_definition(data):
    layout = data.draw(layouts())
    knockout = data.draw(knockouts(layout, layers=3, heads=2))
    expected = np.zeros((layout.length, layout.length), bool)
    for edge in knockout.edges:
        expected |= by_hand(layout, edge)
    cut = cut_table(layout, knockout)
    np.testing.assert_array_equal(dense(layout, cut), expected)
    assert count_edges(layout, cut) == expected.sum()

    mask = edge_mask(layout, [knockout], layers=3, heads=2)
    rows = np.array([layout.length - 1, 0, layout.length // 2])
    columns = np.arange(layout.length)[::-1].copy()
    for layer in range(3):
        ours = np.asarray(mask.at(layer).rows(jnp.asarray(rows), jnp.asarray(columns)))
        for head in range(len(ours)):
            is_cut = layer in knockout.layers and head in (knockout.heads or range(2))
            allowed = np.tri(layout.length, dtype=bool) & ~(expected & is_cut)
            np.testing.assert_array_equal(ours[head], allowed[np.ix_(rows, columns)])


def test_dense_mask_reads_like_a_group_mask():
    knockout = Knockout(parse_edges("video->question"), (1,))
    mask = edge_mask(LAYOUT, [knockout], layers=2, heads=4)
    positions = DenseMask(jnp.asarray(dense(LAYOUT, np.asarray(mask.allowed))))
    rows, columns = jnp.array([12, 4, 0]), jnp.arange(LAYOUT.length)
    for layer in range(2):
        np.testing.assert_array_equal(
            mask.at(layer).rows(rows, columns), positions.at(layer).rows(rows, columns)
        )


def test_a_source_past_the_end_is_read_by_nobody():
    mask = EdgeMask(
        jnp.asarray(LAYOUT.cell), jnp.ones((1, len(LAYOUT.cells), len(LAYOUT.cells)), bool)
    )
    nobody = jnp.array([0, np.iinfo(np.int32).max])
    np.testing.assert_array_equal(mask.rows(jnp.array([5]), nobody)[0, 0], [True, False])
    every = DenseMask(jnp.ones((1, LAYOUT.length, LAYOUT.length), bool))
    np.testing.assert_array_equal(every.rows(jnp.array([5]), nobody)[0, 0], [True, False])


def test_an_edge_removed_twice_equals_once():
    edge = Knockout(parse_edges("video->last"), (0, 1))
    once = edge_mask(LAYOUT, [edge], layers=2, heads=1)
    for again in ([edge, edge], [Knockout(parse_edges("video->last+video->last"), (0, 1))]):
        twice = edge_mask(LAYOUT, again, layers=2, heads=1)
        np.testing.assert_array_equal(once.allowed, twice.allowed)


@pytest.mark.parametrize(
    ("knockout", "message"),
    [
        (Knockout(parse_edges("video->qestion"), (0,)), "'qestion' does not exist.*question_stem"),
        (Knockout(parse_edges("last->video"), (0,)), "removes no edge"),
        (Knockout(parse_edges("video->last"), (2,)), "layer 2 does not exist.*0 to 1"),
        (Knockout(parse_edges("video->last"), (0,), (4,)), "head 4 does not exist.*0 to 3"),
    ],
)
def test_a_knockout_that_matches_nothing_is_refused(knockout, message):
    with pytest.raises(FlowjaxError, match=message):
        edge_mask(LAYOUT, [knockout], layers=2, heads=4)


@pytest.mark.parametrize(
    ("edges", "layers", "heads", "message"),
    [
        ("video->last", (), None, "'video->last': no layer is given"),
        ("video->last", (1, -1), None, "layer -1: layers are counted from 0"),
        ("video->last", (1, 0, 1), None, "layer 1 is given twice"),
        ("video->last", (0,), (), "no head is given"),
        ("video->last", (0,), (2, 2), "head 2 is given twice"),
        ("video", (0,), None, "source->target"),
        ((), (0,), None, "a knockout needs an edge"),
    ],
)
def test_a_knockout_that_makes_no_sense_is_refused_when_made(edges, layers, heads, message):
    with pytest.raises(FlowjaxError, match=message):
        Knockout(edges, layers, heads)


def test_a_knockout_reads_text():
    cut = Knockout("video->last+cross_frame", range(2))
    assert cut == Knockout((Edge("video", "last"), Edge.CROSS_FRAME), (0, 1))
    assert cut.name == "video->last+cross_frame"


def test_masks_combine():
    """Each edge that both allow, whatever their forms."""
    n = jnp.arange(LAYOUT.length)
    first, second = (
        edge_mask(LAYOUT, [Knockout(text, (0,))], layers=2, heads=1)
        for text in ("video->last", "cross_frame")
    )
    written_out = DenseMask(jnp.asarray(dense(LAYOUT, np.asarray(second.allowed))))
    expected = np.asarray(first.at(0).rows(n, n)) & np.asarray(second.at(0).rows(n, n))
    assert expected.sum() < np.asarray(first.at(0).rows(n, n)).sum()
    for mask in (first & second, first & written_out, written_out & first):
        np.testing.assert_array_equal(mask.at(0).rows(n, n), expected)
    np.testing.assert_array_equal(
        (written_out & written_out).at(0).rows(n, n), second.at(0).rows(n, n)
    )


@pytest.mark.parametrize("text", ["video", "video->", "->last", "a->b->c", "video-question", ""])
def test_edge_of_another_form(text):
    with pytest.raises(FlowjaxError, match="source->target"):
        Edge.parse(text)


@pytest.mark.parametrize("text", ["video->last", "cross_frame", "frame_0->option_A"])
def test_edges_print_as_they_parse(text):
    assert str(Edge.parse(text)) == text
