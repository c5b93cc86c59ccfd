import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowjax.edges import Knockout, causal_edges, cut_table, dense, edge_mask
from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout
from flowjax.models.attention import CHUNK
from flowjax.models.decoder import DecoderConfig
from flowjax.models.rope import Rope
from flowjax.sweeps.cost import chunked_edges
from flowjax.sweeps.plan import (
    Footprint,
    bucket_rows,
    dense_footprint,
    footprint,
    plan_sweep,
)
from flowjax.sweeps.protocol import protocol
from tests.strategies import knockouts, layouts


def config(layers=12, width=512, heads=8):
    return DecoderConfig(
        vocabulary=1000,
        width=width,
        mlp_width=1376,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        norm_eps=1e-5,
        rope=Rope(width // heads, 1e4),
        qkv_bias=False,
        qk_norm=False,
        tied_embeddings=False,
        window=None,
    )


def video_layout(frames=8, tokens=144, tail=7):
    names = ["system"] * 47
    names += [f"frame_{index}" for index in range(frames) for _ in range(tokens)]
    names += ["instruction"] * 5 + ["question_format"] * 2 + ["question_stem"] * 12
    for letter in "ABCD":
        names += ["question_format"] + [f"option_{letter}"] * tail
    return TokenLayout.from_cells([*names, *["instruction"] * 16, "last"], "option_B")


@given(st.data())
def test_footprint_is_the_first_row_and_layer_of_the_dense_mask(data):
    layout = data.draw(layouts())
    knockout = data.draw(knockouts(layout, layers=3, heads=2))
    cut = dense(layout, cut_table(layout, knockout))
    rows = np.flatnonzero(cut.any(axis=1))
    assert footprint(layout, knockout) == Footprint(min(knockout.layers), int(rows[0]))
    mask = edge_mask(layout, [knockout], layers=3, heads=2)
    written_out = dense(layout, np.asarray(mask.allowed))
    assert dense_footprint(written_out) == footprint(layout, knockout)


def test_a_dense_mask_that_cuts_nothing_is_refused():
    with pytest.raises(FlowjaxError, match="removes no edge"):
        dense_footprint(np.ones((2, 1, 4, 4), bool))


@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 599)), min_size=1, max_size=60),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(1, 40)),
)
def test_every_knockout_is_planned_once_where_it_fits(starts_and_rows, multiple, megabytes):
    length = 600
    footprints = [Footprint(start, row) for start, row in starts_and_rows]
    budget = None if megabytes is None else 60_000_000 + megabytes * 10_000_000
    try:
        plan = plan_sweep(length, footprints, config(), budget=budget, multiple=multiple)
    except FlowjaxError as error:
        assert "needs at least" in str(error)
        return
    planned = [index for batch in plan.batches for index in batch.knockouts]
    assert sorted(planned) == list(range(len(footprints)))
    for batch in plan.batches:
        assert len(batch.knockouts) <= batch.size
        assert batch.size % multiple == 0
        for index in batch.knockouts:
            assert batch.start <= footprints[index].start
            assert batch.first_row <= footprints[index].first_row
        assert batch.first_row <= batch.prefix <= plan.length
        assert batch.first_row + batch.rows >= length
        assert batch.first_row + batch.rows <= plan.length
    assert budget is None or plan.bytes <= budget
    assert plan.flops.bound <= plan.flops.planned


def test_a_budget_below_one_window_says_what_is_needed():
    with pytest.raises(FlowjaxError, match="needs at least"):
        plan_sweep(600, [Footprint(0, 0)], config(), budget=1_000_000)


@pytest.mark.parametrize(("layers", "width"), [(12, 3), (32, 9)])
def test_the_papers_sweep_is_close_to_the_bound_with_few_compilations(layers, width):
    layout = video_layout()
    cells = protocol(width=width).cells(layout, layers, heads=8)
    footprints = [footprint(layout, cell.knockout) for cell in cells]
    plan = plan_sweep(layout.length, footprints, config(layers))
    assert plan.flops.planned <= 1.15 * plan.flops.bound
    assert plan.flops.naive >= 12 * plan.flops.planned
    assert plan.shapes + 1 < 40


def test_flops_of_one_window_by_hand():
    small = config(layers=2, width=8, heads=2)
    plan = plan_sweep(64, [Footprint(0, 60)], small)
    linear = 2 * 8 * 8 * 4 + 3 * 2 * 8 * 1376
    head = 2 * 8 * 1000
    reading = 2 * 2 * 2 * 4  # multiply-adds of scores and values, two heads of width 4
    prefill = 2 * (64 * linear + reading * 64 * 65 // 2) + head
    edges = 61 + 62 + 63 + 64
    window = 4 * linear + reading * edges + 3 * 2 * 8 * 16 + linear + reading * 64 + head
    assert plan.flops.bound == prefill + window
    assert plan.flops.naive == 2 * (64 * linear + reading * 64 * 64) + head


def test_edges_are_counted():
    assert causal_edges(0, 4) == 10
    assert causal_edges(3, 4) == 4
    assert chunked_edges(3, 5) == 3 * 8
    rows = CHUNK + 10
    assert chunked_edges(rows, 7) == CHUNK * (7 + CHUNK) + 10 * (7 + rows)


@given(st.integers(1, 5000))
def test_buckets_waste_at_most_an_eighth(rows):
    bucket = bucket_rows(rows)
    assert bucket >= rows
    assert rows <= 16 or bucket - rows <= rows / 8


def test_per_head_and_joined_edges_have_the_footprint_of_their_earliest_part():
    layout = video_layout()
    joined = Knockout("video->last+video->question", (4, 2), (1,))
    alone = Knockout("video->question", (2,))
    assert footprint(layout, joined) == footprint(layout, alone)
