"""Live rows, stages and counts against masks written out over positions."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowjax.edges import dense, edge_table
from flowjax.inference.compile import compile_pathway
from flowjax.inference.cost import costs
from flowjax.inference.live import live_rows
from flowjax.pathway import FORMS, KEPT, Pathway, kept_fraction, preset
from flowjax_benchmarks.sweep import prompt_layout
from tests.inference.masked import VARIANTS
from tests.strategies import knockouts, layouts
from tests.sweeps.test_engine import HEADS, LAYERS, long_layout

CONFIG = VARIANTS["gqa, biases"].config


@settings(max_examples=40)
@given(st.data(), st.sampled_from(FORMS))
def test_live_rows_of_any_pathway(data, form):
    layout = data.draw(layouts())
    kept = st.sets(st.integers(0, LAYERS - 1)).map(lambda layers: tuple(sorted(layers)))
    cut = Pathway("p", form, LAYERS, *(data.draw(kept) for _ in KEPT)).knockouts(layout)
    cut += tuple(data.draw(st.lists(knockouts(layout, LAYERS, HEADS), max_size=2)))
    table = edge_table(layout, cut, layers=LAYERS, heads=HEADS)
    reads = dense(layout, table).any(axis=1)
    live = np.arange(layout.length) == layout.length - 1
    edges = 0
    for layer, rows in reversed(list(enumerate(live_rows(layout, table)))):
        np.testing.assert_array_equal(rows.rows, np.flatnonzero(live))
        read = reads[layer][live].any(axis=0)
        np.testing.assert_array_equal(rows.sources, np.flatnonzero(read))
        np.testing.assert_array_equal(rows.cache, np.flatnonzero(reads[layer][-1]))
        each = dense(layout, table[layer])[:, live].sum(axis=(1, 2))
        edges += np.resize(each, HEADS).sum()
        live = live | read
    compiled = compile_pathway(layout, cut, CONFIG, blocks=(16, 16))
    cost = costs(layout, compiled, CONFIG, value_bytes=2)
    assert cost.compiled.edges == edges
    assert cost.kept_edges == pytest.approx(kept_fraction(layout, cut, layers=LAYERS, heads=HEADS))
    entries = sum(len(rows.cache) for rows in live_rows(layout, table))
    assert cost.compiled.cache_bytes == entries * 2 * CONFIG.kv_heads * CONFIG.head_dim * 2


def shape_of(compiled):
    stages = [(stage.layers, len(stage.row_position)) for stage in compiled.stages]
    return stages, [(cut.layers, len(cut.position)) for cut in compiled.cuts]


def test_the_strict_7b_pathway():
    layout = long_layout()
    pathway = preset("llava-next-7b", "strict")
    config = dataclasses.replace(CONFIG, layers=32)
    compiled = compile_pathway(layout, pathway.knockouts(layout), config)
    system, text = 9, 9 + 3 + 21 + 5 + 6 + 7
    assert shape_of(compiled) == (
        [
            (19, layout.length),
            (1, text + 1),
            (4, text + 1),
            (1, system + 1),
            (6, system + 1),
            (1, 1),
        ],
        [(15, system), (4, text), (1, text), (4, text), (1, text), (6, system), (1, system)],
    )
    cost = costs(layout, compiled, config, value_bytes=2)
    assert cost.compiled.cache_bytes * layout.length * 32 == cost.full.cache_bytes * (
        22 * system + 10 * text
    )
    assert cost.compiled.flops < 0.7 * cost.full.flops
    assert cost.compiled.blocks < cost.full.blocks


def test_a_tpus_stages_have_the_blocks_that_suit_their_layers(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    layout, pathway = prompt_layout(113, 144), preset("llava-next-7b", "strict")
    config = dataclasses.replace(CONFIG, layers=32)
    compiled = compile_pathway(layout, pathway.knockouts(layout), config)
    assert [stage.layers for stage in compiled.stages] == [5, 10, 4, 1, 4, 1, 6, 1]
    shapes = [(stage.blocks.block_q, stage.blocks.block_k) for stage in compiled.stages]
    assert shapes == [(256, 512), (512, 1024), *[(256, 512)] * 6]
    one = compile_pathway(layout, pathway.knockouts(layout), config, blocks=(256, 512))
    assert len(one.stages) == 6
    mixed, small = (costs(layout, each, config, value_bytes=2) for each in (compiled, one))
    assert mixed.full == small.full
    assert mixed.compiled.edges == small.compiled.edges
    # A large block covers four: more dead edges are computed.
    assert 1 < mixed.compiled.blocks / small.compiled.blocks < 1.1


def test_the_literal_form_keeps_every_row_alive():
    layout = long_layout()
    pathway = preset("llava-next-7b", "paper")
    config = dataclasses.replace(CONFIG, layers=32)
    compiled = compile_pathway(layout, pathway.knockouts(layout), config)
    assert shape_of(compiled)[0][0] == (30, layout.length)


@pytest.mark.parametrize("form", FORMS)
def test_programs_do_not_grow_with_depth(form):
    layout = long_layout(12)
    counts = set()
    for layers in (16, 32, 128):
        config = dataclasses.replace(CONFIG, layers=layers)
        pathway = preset("llava-next-7b", form).scaled(layers)
        compiled = compile_pathway(layout, pathway.knockouts(layout), config)
        counts.add((len(compiled.stages), len(compiled.cuts)))
    assert len(counts) == 1


def test_full_costs_are_those_of_every_row():
    layout = long_layout(12)
    config = CONFIG
    compiled = compile_pathway(layout, (), config, blocks=(16, 32))
    cost = costs(layout, compiled, config, value_bytes=4)
    n, of_layers = layout.length, config.layers * config.heads
    assert cost.kept_edges == 1
    assert cost.full.edges == of_layers * np.tri(n).sum()
    starts = np.arange(0, n, 32)
    per_head = sum((starts < min(row + 16, n)).sum() for row in range(0, n, 16))
    assert cost.full.blocks == of_layers * per_head
    # In the last layer only the final row is computed.
    assert cost.compiled.edges == config.heads * (np.tri(n).sum() * (config.layers - 1) + n)
    assert cost.compiled.cache_bytes == cost.full.cache_bytes
