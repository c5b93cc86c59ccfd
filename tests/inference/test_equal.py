"""Compiled prefill and decode against the masked full forward."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowjax.edges import Knockout, parse_edges
from flowjax.inference.compile import compile_pathway
from flowjax.inference.decode import Sampling, decode, generate
from flowjax.inference.prefill import prefill
from flowjax.layout import TokenLayout
from flowjax.pathway import KEPT, Pathway
from tests.inference.masked import VARIANTS, embedded, logits_at, mask_of, masked_tokens
from tests.strategies import knockouts, layouts
from tests.sweeps.test_engine import HEADS, LAYERS, long_layout

LAYER_SETS = st.sets(st.integers(0, LAYERS - 1)).map(lambda layers: tuple(sorted(layers)))


@st.composite
def pathways(draw, layout):
    """What a pathway cuts, and sometimes edges of single heads beside it."""
    form = draw(st.sampled_from(["paper", "strict"]))
    pathway = Pathway("drawn", form, LAYERS, *(draw(LAYER_SETS) for _ in KEPT))
    return pathway.knockouts(layout) + tuple(
        draw(st.lists(knockouts(layout, LAYERS, HEADS), max_size=2))
    )


def check(decoder, x, layout, cut, steps=3):
    compiled = compile_pathway(layout, cut, decoder.config, room=steps, blocks=(16, 16))
    logits, cache = prefill(decoder, x, compiled)
    tokens, expected = masked_tokens(decoder, x, layout, cut, steps + 1)
    np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-5)
    for step in range(steps):
        logits, cache = decode(decoder, cache, compiled, jnp.asarray(tokens[step]))
        np.testing.assert_allclose(logits, expected[step + 1], rtol=0, atol=1e-5)
    return compiled


def check_any(data, name, deepstack):
    layout = data.draw(layouts())
    decoder = VARIANTS[name]
    x = embedded(decoder, layout, deepstack=deepstack)
    check(decoder, x, layout, data.draw(pathways(layout)))


@settings(max_examples=6)
@given(st.data(), st.sampled_from(sorted(VARIANTS)), st.sampled_from([0, 2, LAYERS + 1]))
def test_compiled_equals_masked(data, name, deepstack):
    check_any(data, name, deepstack)


@pytest.mark.slow
@settings(max_examples=100)
@given(st.data(), st.sampled_from(sorted(VARIANTS)), st.sampled_from([0, 2, LAYERS + 1]))
def test_compiled_equals_masked_at_length(data, name, deepstack):
    check_any(data, name, deepstack)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant(name):
    """A pathway with all kinds of stages, on a prompt of several attention blocks."""
    layout = long_layout(12)
    pathway = Pathway("p", "strict", LAYERS, (0,), (0, 1), (2,), last_to_last=(1, 3))
    decoder = VARIANTS[name]
    x = embedded(decoder, layout, deepstack=2)
    compiled = check(decoder, x, layout, pathway.knockouts(layout), steps=4)
    assert len(compiled.stages) == 4


@pytest.mark.parametrize("form", ["paper", "strict"])
@pytest.mark.parametrize("last_to_last", [(), (0, 2)])
def test_64_tokens(form, last_to_last):
    layout, decoder = long_layout(12), VARIANTS["gqa, biases"]
    pathway = Pathway("p", form, LAYERS, (0,), (0, 1), (1, 2), last_to_last)
    cut = pathway.knockouts(layout)
    x = embedded(decoder, layout)
    expected, _ = masked_tokens(decoder, x, layout, cut, 64)
    compiled = compile_pathway(layout, cut, decoder.config, room=63)
    ours = list(generate(decoder, x, compiled, tokens=64, sampling=Sampling()))
    assert ours == expected


def test_64_tokens_without_a_pathway():
    layout, decoder = long_layout(12), VARIANTS["mha"]
    x = embedded(decoder, layout)
    expected, _ = masked_tokens(decoder, x, layout, (), 64)
    compiled = compile_pathway(layout, (), decoder.config, room=63)
    ours = list(generate(decoder, x, compiled, tokens=64, sampling=Sampling()))
    assert ours == expected
    assert len(set(ours)) > 10, "the same few tokens again and again test little"


def test_a_layer_that_reads_nothing():
    """All edges into the text are cut in one layer, so that no row there has a source."""
    layout, decoder = long_layout(12), VARIANTS["mha"]
    everything = parse_edges("+".join(f"{cell}->last" for cell in layout.cells))
    check(decoder, embedded(decoder, layout), layout, (Knockout(everything, (LAYERS - 1,)),))
    alone = TokenLayout.from_cells(["frame_0", "question_stem", "last"])
    edges = parse_edges("last->last+video->last+question->last")
    cut = (Knockout(edges, tuple(range(LAYERS))),)
    compiled = check(decoder, embedded(decoder, alone), alone, cut)
    assert all(len(stage.row_position) == 1 for stage in compiled.stages)


def test_one_frame_and_one_position():
    decoder = VARIANTS["mha"]
    layout = TokenLayout.from_cells(["frame_0", "question_stem", "last"])
    for form in ("paper", "strict"):
        cut = Pathway("p", form, LAYERS, (), (1,), (2,)).knockouts(layout)
        check(decoder, embedded(decoder, layout), layout, cut)
    single = TokenLayout.from_cells(["last"])
    x = embedded(decoder, single)
    compiled = compile_pathway(single, (), decoder.config)
    logits, _ = prefill(decoder, x, compiled)
    expected = logits_at(decoder, x, mask_of(decoder, single, ()), 0)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
