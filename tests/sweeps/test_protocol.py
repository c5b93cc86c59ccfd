import numpy as np
import pytest

from flowjax.api.sweep import asked_protocol
from flowjax.edges import Knockout, cut_table, dense
from flowjax.errors import FlowjaxError
from flowjax.layer_windows import EDGE_SETS
from flowjax.layout import TokenLayout
from flowjax.patches import Patch
from flowjax.sweeps.protocol import protocol

NAMES = ["system", "frame_0", "frame_1", *["question_stem"] * 3, "option_A", "option_B"]
LAYOUT = TokenLayout.from_cells([*NAMES, "instruction", "last"], "option_A")


def test_the_papers_protocol():
    cells = protocol(width=3).cells(LAYOUT, 4, 2)
    edges = [edge for edges in EDGE_SETS.values() for edge in edges]
    assert [cell.knockout.name for cell in cells[::4]] == edges
    assert [cell.knockout.layers for cell in cells[:4]] == [(0, 1), (0, 1, 2), (1, 2, 3), (2, 3)]
    assert {cell.head for cell in cells} == {-1}


def test_heads_one_by_one():
    cells = protocol(edges=["video->last"], width=1, heads="all").cells(LAYOUT, 2, 3)
    assert [(cell.head, cell.knockout.heads) for cell in cells] == [
        (head, (head,)) for head in range(3) for _ in range(2)
    ]
    chosen = protocol(edges=["video->last"], width=1, heads="2,0").cells(LAYOUT, 2, 3)
    assert [cell.head for cell in chosen] == [2, 2, 0, 0]


@pytest.mark.parametrize("heads", ["", "a", "1,1", "-1", "1;2"])
def test_heads_of_another_form(heads):
    with pytest.raises(FlowjaxError, match="--heads"):
        protocol(heads=heads)


def test_tokens_one_by_one_are_cells_of_their_own():
    asked = protocol(edges=["video->question_stem[*]", "question_stem[1]->last"], width=1)
    layout = asked.layout(LAYOUT)
    cells = asked.cells(layout, 1, 1)
    assert [cell.knockout.name for cell in cells] == [
        "video->question_stem[0]",
        "video->question_stem[1]",
        "video->question_stem[2]",
        "question_stem[1]->last",
    ]
    for index, cell in enumerate(cells[:3]):
        cut = dense(layout, cut_table(layout, cell.knockout))
        expected = np.zeros_like(cut)
        expected[3 + index, [1, 2]] = True
        np.testing.assert_array_equal(cut, expected)
    assert protocol().layout(LAYOUT) is LAYOUT


def test_splitting_keeps_every_group():
    layout = LAYOUT.split(["question_stem", "question"])
    for group in LAYOUT.groups:
        np.testing.assert_array_equal(layout.positions(group), LAYOUT.positions(group))
    assert layout.positions("question_stem[2]").tolist() == [5]
    assert layout.positions("question[2]").tolist() == [5]
    assert layout.positions("question[4]").tolist() == [7]


def test_the_same_token_in_both_places():
    asked = protocol(edges=["video->question_stem[*]+question_stem[*]->last"], width=1)
    cells = asked.cells(asked.layout(LAYOUT), 1, 1)
    assert [cell.knockout.name for cell in cells] == [
        f"video->question_stem[{index}]+question_stem[{index}]->last" for index in range(3)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edge_sets": ["vql"]}, "edge set 'vql'.*cross-frame"),
        ({"edge_sets": ["cross-frame", "cross-frame"]}, "given twice"),
        ({"edges": ["video->last", "video -> last"]}, "given twice"),
    ],
)
def test_bad_protocols(arguments, message):
    with pytest.raises(FlowjaxError, match=message):
        protocol(**arguments)


def test_a_token_that_does_not_exist():
    asked = protocol(edges=["video->question_stem[3]"], width=1)
    layout = asked.layout(LAYOUT)
    with pytest.raises(FlowjaxError, match=r"'question_stem\[3\]' does not exist"):
        cut_table(layout, Knockout(asked.edges[0].edges, (0,)))


def test_chosen_centres_only():
    every = protocol(edges=["video->last"], width=3).cells(LAYOUT, 8, 2)
    some = protocol(edges=["video->last"], width=3, centres="6,1-2").cells(LAYOUT, 8, 2)
    assert some == tuple(every[centre] for centre in (1, 2, 6))


@pytest.mark.parametrize("centres", ["", "a", "-1", "3-2", "1,1", "0-2,1", "1;2"])
def test_centres_of_another_form_are_refused(centres):
    with pytest.raises(FlowjaxError, match="--centres"):
        protocol(edges=["video->last"], centres=centres)


def test_a_centre_that_the_model_lacks():
    with pytest.raises(FlowjaxError, match="--centres 8: the model's layers are 0 to 7"):
        protocol(edges=["video->last"], width=3, centres="3,8").cells(LAYOUT, 8, 2)


def test_a_program_chooses_centres_of_edges_and_patches():
    patch = Patch(0.0, "last")
    for edges in (["video->last"], [patch], ["video->last", patch]):
        cells = asked_protocol(edges, 3, "center", None, "1-2").cells(LAYOUT, 8, 2)
        assert [cell.centre for cell in cells] == [1, 2] * len(edges)
