"""Block maps agree with the dense mask that is never made."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowjax.edges import Edge, Knockout, count_edges, cut_table, edge_table
from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention import block_map, block_shape, stack_maps, suited_shape
from flowjax.kernels.pruned_attention.blocks import FULL, NONE, PARTIAL, BlockMap, unpack
from flowjax_benchmarks.kernel_layers import layer_kinds
from flowjax_benchmarks.sweep import prompt_layout
from tests.kernels.cases import problem


def tiles(edges, block_q, block_k, fill):
    """Edges [tables, q, k] by block: [tables, query_blocks, block_q, key_blocks, block_k]."""
    tables, queries, keys = edges.shape
    padded = np.pad(
        edges,
        ((0, 0), (0, -queries % block_q), (0, -keys % block_k)),
        constant_values=((False,) * 2, (False, fill), (False, False)),
    )
    return padded.reshape(
        tables, padded.shape[1] // block_q, block_q, padded.shape[2] // block_k, block_k
    )


@st.composite
def problems(draw):
    return problem(
        draw(st.integers(1, 120)),
        groups=draw(st.integers(1, 70)),
        width=1,
        heads=3,
        tables=draw(st.sampled_from([1, 3])),
        density=draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0])),
        gathered=draw(st.booleans()),
        scattered=draw(st.booleans()),
        dead_groups=draw(st.integers(0, 1)),
        seed=draw(st.integers(0, 10_000)),
    )


@given(problems(), st.sampled_from([1, 3, 8, 64]), st.sampled_from([1, 5, 16, 64]))
def test_kinds_counts_and_words_equal_the_dense_mask(given_, block_q, block_k):
    blocks = given_.blocks(block_q, block_k)
    edges = given_.edges
    by_block = tiles(edges, block_q, block_k, fill=False)
    kept = by_block.any((2, 4))
    full = tiles(edges, block_q, block_k, fill=True).all((2, 4))
    full[..., -1] &= len(given_.key_position) % block_k == 0
    full &= kept

    assert blocks.kept_edges == edges.sum()
    assert blocks.kept_blocks == kept.sum()
    assert blocks.partial_blocks == (kept & ~full).sum()
    causal = given_.query_position[:, None] >= given_.key_position[None, :]
    assert (
        blocks.causal_blocks
        == len(edges) * tiles(causal[None], block_q, block_k, False).any((2, 4)).sum()
    )

    for head, table in enumerate(blocks.table_of_head):
        visits = unpack(blocks.visits[table])
        kind = np.full(kept.shape[1:], NONE)
        live = visits.kind != NONE
        kind[visits.query_block[live], visits.key_block[live]] = visits.kind[live]
        np.testing.assert_array_equal(kind, np.where(full[head], FULL, kept[head] * PARTIAL))
        assert live.sum() == kept[head].sum()
        # Every query block begins and ends once, in order.
        each = np.arange(kept.shape[1])
        np.testing.assert_array_equal(visits.query_block[visits.first], each)
        np.testing.assert_array_equal(visits.query_block[visits.last], each)
        assert (np.diff(visits.query_block) >= 0).all()
        order = blocks.order[table]
        np.testing.assert_array_equal(np.sort(order), each)
        assert (np.diff(live_of(blocks, int(table))[order]) <= 0).all()
        check_words(blocks, int(table), by_block[head], given_)


def live_of(blocks, table):
    """Live blocks of each query block."""
    return blocks.bounds[table, :, 2] - blocks.bounds[table, :, 0]


def check_words(blocks, table, by_block, given_):
    """The words of each partial block, with the positions, give its edges."""
    visits = unpack(blocks.visits[table])
    classes = blocks.column_class.reshape(-1, blocks.block_k)
    for query_block, (_, masked, end, words) in enumerate(blocks.bounds[table]):
        for number in range(masked, end):
            key_block = visits.key_block[number]
            class_ = classes[key_block]
            row_words = blocks.row_words[table, words + number - masked]
            bits = (row_words[class_ >> 5].T >> (class_ & 31)) & 1 == 1
            rows = slice(query_block * blocks.block_q, (query_block + 1) * blocks.block_q)
            columns = slice(key_block * blocks.block_k, (key_block + 1) * blocks.block_k)
            target, source = given_.query_position[rows], given_.key_position[columns]
            allowed = bits[: len(target), : len(source)] & (target[:, None] >= source[None, :])
            expected = by_block[query_block, : len(target), key_block, : len(source)]
            np.testing.assert_array_equal(allowed, expected)


def test_heads_with_equal_tables_share_one():
    table = np.array([[[1, 0], [1, 1]], [[1, 1], [1, 1]], [[1, 0], [1, 1]]], bool)
    position = np.arange(8)
    blocks = block_map(np.arange(8) // 4, table, position, position, block_q=4, block_k=4)
    assert blocks.table_of_head.tolist() == [0, 1, 0]
    assert blocks.visits.shape[0] == 2
    assert blocks.kept_edges == 3 * 36  # the cut entry lies above the diagonal


def test_rows_that_are_not_there_are_read_by_nobody():
    position = np.arange(8)
    padded = np.array([0, 1, 2, 3, 8, 9, 10, 11])
    blocks = block_map(
        np.zeros(8, np.int32), np.ones((1, 1, 1), bool), position, padded, block_q=4, block_k=4
    )
    assert blocks.kept_blocks == 2
    assert blocks.kept_edges == 1 + 2 + 3 + 4 * 5


LAYOUT = prompt_layout(frames=113, tokens_per_frame=144)
CUTS = [
    Knockout((Edge.parse("cross_frame"), Edge("video", "question"), Edge("last", "last")), (0,)),
    Knockout((Edge("video", "video"),), (0,)),
]


@pytest.mark.parametrize("knockout", CUTS, ids=lambda knockout: knockout.name)
def test_sixteen_thousand_tokens_need_no_square_array(knockout):
    table = edge_table(LAYOUT, [knockout], layers=1, heads=1)[0]
    position = np.arange(LAYOUT.length)
    tracemalloc.start()
    blocks = block_map(LAYOUT.cell, table, position, position, block_q=128, block_k=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < LAYOUT.length**2 / 20  # one byte per pair would be 20 times as much
    every = LAYOUT.length * (LAYOUT.length + 1) // 2
    assert blocks.kept_edges == every - count_edges(LAYOUT, cut_table(LAYOUT, knockout))
    assert blocks.kept_blocks < blocks.causal_blocks / 4


@pytest.mark.parametrize(
    ("frames", "large"), [(8, []), (32, [5]), (113, [5])], ids=["1,272", "4,728", "16,392"]
)
def test_a_tpu_takes_large_blocks_where_nearly_nothing_is_cut(frames, large):
    layout = prompt_layout(frames, 144)
    position = np.arange(layout.length)
    shapes = {
        layers[0]: suited_shape(layout.cell, table, position, position, 128, "mosaic_tpu")
        for layers, table in layer_kinds(layout)
    }
    assert set(shapes) == {0, 5, 15, 20, 25}
    for layer, shape in shapes.items():
        assert shape == ((512, 1024) if layer in large else block_shape(128, "mosaic_tpu"))
    _, table = layer_kinds(layout)[1]
    assert suited_shape(layout.cell, table, position, position, 128, "xla") == (128, 128)


def test_query_blocks_that_outlast_all_others_are_long():
    """The text, in the last two of 129, reads every frame; no frame reads another."""
    table = edge_table(LAYOUT, [Knockout((Edge.parse("cross_frame"),), (0,))], layers=1, heads=1)[0]
    position = np.arange(LAYOUT.length)
    shape = {"block_q": 128, "block_k": 128}
    blocks = block_map(LAYOUT.cell, table, position, position, **shape)
    np.testing.assert_array_equal(live_of(blocks, 0)[blocks.order[0, :3]], [129, 128, 4])
    assert blocks.long == 2
    uncut = block_map(LAYOUT.cell, np.ones_like(table), position, position, **shape)
    assert uncut.long == 0
    np.testing.assert_array_equal(uncut.order[0], np.arange(129)[::-1])


def test_stacking_keeps_each_layers_counts():
    maps = [problem(50, groups=4, width=1, density=density).blocks(8, 8) for density in (0.2, 0.9)]
    stacked = stack_maps(maps)
    for index, one in enumerate(maps):
        layer = BlockMap(
            **{
                name: value[index] if isinstance(value, np.ndarray) else value
                for name, value in vars(stacked).items()
            }
        )
        assert layer.kept_edges == one.kept_edges
        assert layer.kept_blocks == one.kept_blocks
        assert layer.partial_blocks == one.partial_blocks
    assert stacked.kept_edges == sum(one.kept_edges for one in maps)


@pytest.mark.parametrize(
    ("queries", "keys", "block_q", "block_k", "says"),
    [
        ([], [0], 4, 4, "query positions: there are none"),
        ([0], [], 4, 4, "key positions: there are none"),
        ([1, 0], [0, 1], 4, 4, "query positions: they must be ascending"),
        ([0, 1], [-1, 0], 4, 4, "key positions: they must be ascending and not negative"),
        ([0, 1], [0, 1], 0, 4, "query block size 0"),
        (range(9000), [0], 1, 4, "9000 rows make more than 8192 blocks; take blocks of at least 2"),
        ([0], range(20_000), 4, 1, "20000 rows make more than 16384 blocks"),
    ],
)
def test_refuses_what_it_cannot_map(queries, keys, block_q, block_k, says):
    with pytest.raises(FlowjaxError, match=says):
        block_map(
            np.zeros(4, np.int32),
            np.ones((1, 1, 1), bool),
            np.array(queries, int),
            np.array(keys, int),
            block_q=block_q,
            block_k=block_k,
        )
