"""The planned engine against the plain full forward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flowjax.edges import Knockout, dense, edge_mask, parse_edges
from flowjax.layout import TokenLayout
from flowjax.masks import DenseMask, EdgeMask
from flowjax.models.attention import CHUNK
from flowjax.models.decoder import Decoder, DecoderConfig
from flowjax.models.embedded import Embedded
from flowjax.models.rope import Rope
from flowjax.sweeps import cost, engine
from flowjax.sweeps.engine import planned
from flowjax.sweeps.plan import footprint, plan_sweep
from flowjax.sweeps.protocol import protocol
from flowjax.sweeps.reference import full_forwards, last_logits
from tests.strategies import knockouts, layouts

LAYERS, HEADS, WIDTH = 4, 4, 32


def model_of(
    kv_heads=HEADS,
    qkv_bias=False,
    qk_norm=False,
    tied=False,
    theta=1e4,
    head_dim=8,
    window=None,
    dtype="float32",
):
    return Decoder(
        DecoderConfig(
            vocabulary=50,
            width=WIDTH,
            mlp_width=48,
            layers=LAYERS,
            heads=HEADS,
            kv_heads=kv_heads,
            head_dim=head_dim,
            norm_eps=1e-5,
            rope=Rope(head_dim, theta),
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            tied_embeddings=tied,
            window=window,
        ),
        jnp.dtype(dtype),
        nnx.Rngs(0),
    )


VARIANTS = {
    "mha": model_of(),
    "gqa": model_of(kv_heads=2, qkv_bias=True, theta=1e6),
    "qk-norm": model_of(kv_heads=2, qk_norm=True),
    "mqa": model_of(kv_heads=1, tied=True, head_dim=16),
    "window": model_of(kv_heads=2, window=9),
}


def embeddings(layout, seed=0):
    x = jax.random.normal(jax.random.key(seed), (layout.length, WIDTH))
    return Embedded.of(x)


def compare(model, x, layout, chosen):
    plain = full_forwards(model, x, layout, chosen)
    quick = planned(model, x, layout, chosen)
    np.testing.assert_allclose(quick.base, plain.base, rtol=0, atol=1e-4)
    expected = plain.collect(len(chosen))
    np.testing.assert_allclose(quick.collect(len(chosen)), expected, rtol=0, atol=1e-4)
    return expected


def check_any(data, variant):
    layout = data.draw(layouts())
    chosen = data.draw(st.lists(knockouts(layout, LAYERS, HEADS), min_size=8, max_size=8))
    compare(VARIANTS[variant], embeddings(layout), layout, chosen)


@settings(max_examples=8)
@given(st.data(), st.sampled_from(sorted(VARIANTS)))
def test_planned_equals_full_forwards(data, variant):
    check_any(data, variant)


@pytest.mark.slow
@settings(max_examples=100)
@given(st.data(), st.sampled_from(sorted(VARIANTS)))
def test_planned_equals_full_forwards_at_length(data, variant):
    check_any(data, variant)


def long_layout(frame=90):
    names = ["system"] * 9
    names += [f"frame_{index}" for index in range(4) for _ in range(frame)]
    names += ["instruction"] * 3 + ["question_stem"] * 21 + ["option_A"] * 5 + ["option_B"] * 6
    return TokenLayout.from_cells([*names, *["instruction"] * 7, "last"], "option_B")


@pytest.mark.parametrize("style", ["center", "inverse", "top_down", "bottom_up"])
def test_the_papers_sweep_over_several_chunks(style):
    layout = long_layout()
    assert layout.length > CHUNK
    cells = protocol(width=2, style=style).cells(layout, LAYERS, HEADS)
    logits = compare(VARIANTS["gqa"], embeddings(layout), layout, [cell.knockout for cell in cells])
    assert np.ptp(logits, axis=0).max() > 0.1, "the knockouts change nothing"


def test_samples_of_one_length_bucket_share_compiled_code():
    model = VARIANTS["mha"]
    edges = ["video->question_stem", "video->last", "cross_frame", "last->last"]
    asked = protocol((), edges, width=2)
    chosen = [cell.knockout for cell in asked.cells(long_layout(), LAYERS, HEADS)]
    engine.suffixes.clear_cache()
    engine.prefill.clear_cache()
    for frame in (84, 85, 86):
        layout = long_layout(frame)
        compare(model, embeddings(layout), layout, chosen)
    assert engine.prefill._cache_size() == 1
    assert engine.suffixes._cache_size() == 4


def with_kernel(model):
    """The decoder with rows that attend by block maps, as on an accelerator."""
    copy = nnx.clone(model)
    copy.kernel = "xla"
    return copy


def test_the_kernel_gives_the_same_rows(monkeypatch):
    """Whole prompts, and rows of one edge after another, by one compiled program each."""
    monkeypatch.setattr(cost, "KERNEL_SCORES", 0)
    layout, model = long_layout(), with_kernel(VARIANTS["gqa"])
    edges = ["cross_frame", "video->question_stem", "video->last", "frame_1->frame_3"]
    windows = protocol((), edges, width=2).cells(layout, LAYERS, HEADS)
    chosen = [cell.knockout for cell in windows]
    chosen += [Knockout("frame_0->frame_1", (1,), heads=(2,)), Knockout("cross_frame", range(4))]
    engine.suffixes.clear_cache()
    logits = compare(model, embeddings(layout), layout, chosen)
    assert np.ptp(logits, axis=0).max() > 0.1, "the knockouts change nothing"
    plan = plan_sweep(layout.length, [footprint(layout, cut) for cut in chosen], model.config)
    per_head = 1
    assert engine.suffixes._cache_size() == plan.shapes + per_head


def test_a_sliding_window_that_cuts_is_left_to_plain_attention():
    assert with_kernel(VARIANTS["window"]).kernel_for(9) == "xla"
    assert with_kernel(VARIANTS["window"]).kernel_for(10) is None


def test_bfloat16_by_the_kernel_is_as_near_as_without(monkeypatch):
    monkeypatch.setattr(cost, "KERNEL_SCORES", 0)
    layout = long_layout()
    rounded = model_of(kv_heads=2, qkv_bias=True, theta=1e6, dtype="bfloat16")
    x = Embedded.of(embeddings(layout).x.astype("bfloat16"))
    cells = protocol((), ["cross_frame"], width=2).cells(layout, LAYERS, HEADS)
    chosen = [cell.knockout for cell in cells]
    by_kernel = planned(with_kernel(rounded), x, layout, chosen).collect(len(chosen))
    plainly = planned(rounded, x, layout, chosen).collect(len(chosen))
    exact = full_forwards(VARIANTS["gqa"], embeddings(layout), layout, chosen).collect(len(chosen))
    error = np.abs(by_kernel - exact).max()
    assert 0 < error < 2 * np.abs(plainly - exact).max()


@pytest.mark.parametrize("layers", [2, LAYERS + 1])
def test_what_is_added_after_the_first_layers(layers):
    """In every suffix as in a full forward, whatever layer and row it starts from."""
    layout = long_layout()
    x = embeddings(layout)
    deepstack = jax.random.normal(jax.random.key(1), (layers, *x.x.shape))
    edges = ["frame_2->frame_3", "video->last"]
    chosen = [cell.knockout for cell in protocol((), edges, width=1).cells(layout, LAYERS, HEADS)]
    with_it = compare(VARIANTS["mha"], x._replace(deepstack=deepstack), layout, chosen)
    without = full_forwards(VARIANTS["mha"], x, layout, chosen).collect(len(chosen))
    assert np.abs(with_it - without).max(axis=1).min() > 0.1


def test_a_budget_changes_no_result():
    layout = long_layout()
    model, x = VARIANTS["mha"], embeddings(long_layout())
    chosen = [cell.knockout for cell in protocol(width=2).cells(layout, LAYERS, HEADS)]
    free = planned(model, x, layout, chosen).collect(len(chosen))
    tight = planned(
        model, x, layout, chosen, budget=plan_sweep(layout.length, [], model.config).bytes + 1_000
    ).collect(len(chosen))
    np.testing.assert_allclose(tight, free, rtol=0, atol=1e-4)


def test_a_knockout_changes_exactly_the_rows_it_should():
    """Rows before the first target, and all rows before the window, keep their hidden states."""
    layout, model = long_layout(12), VARIANTS["mha"]
    knockout = Knockout("video->question_stem", (2,))
    x = embeddings(layout)
    cut = edge_mask(layout, [knockout], layers=LAYERS, heads=HEADS)
    forward = jax.jit(lambda model, x, mask: model(x, mask, keep=engine.Keep(hidden=True)))
    base = forward(model, x, EdgeMask(cut.group, jnp.ones_like(cut.allowed)))
    new = forward(model, x, cut)
    written_out = DenseMask(jnp.asarray(dense(layout, np.asarray(cut.allowed))))
    np.testing.assert_allclose(forward(model, x, written_out).output, new.output, atol=1e-5)

    changed = np.abs(np.asarray(new.hidden - base.hidden)).max(-1) > 1e-6
    stem = layout.positions("question_stem")
    assert not changed[:3].any(), "a state at or before the window's input changed"
    np.testing.assert_array_equal(np.flatnonzero(changed[3]), stem)
    after = np.abs(np.asarray(new.output - base.output)).max(-1) > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(after), np.arange(stem[0], layout.length))


def test_a_fully_masked_row_attends_to_nothing():
    layout, model = long_layout(12), VARIANTS["mha"]
    everything = "+".join(f"{cell}->option_A" for cell in layout.cells)
    knockout = Knockout(parse_edges(everything), (1,))
    compare(model, embeddings(layout), layout, [knockout])
    mask = edge_mask(layout, [knockout], layers=LAYERS, heads=HEADS)
    rows = layout.positions("option_A")
    trace = model(embeddings(layout), mask, keep=engine.Keep(attention=jnp.asarray(rows)))
    weights = np.asarray(trace.attention)
    assert (weights[1] == 0).all()
    np.testing.assert_allclose(weights[[0, 2, 3]].sum(-1), 1, rtol=1e-5)


def test_a_suffix_of_all_rows():
    """Nothing kept is read before it."""
    layout = TokenLayout.from_cells(["system", "frame_0", "frame_1", "question_stem", "last"])
    chosen = [Knockout("system->system", (1,))]
    compare(VARIANTS["gqa"], embeddings(layout), layout, chosen)


def test_length_of_the_padded_prompt_is_not_seen():
    """Right padding in one engine and none in the other: the logits agree (see `compare`)."""
    layout = TokenLayout.from_cells(["system", "frame_0", "frame_1", "question_stem", "last"])
    chosen = [Knockout("cross_frame", (layer,)) for layer in range(LAYERS)]
    logits = compare(VARIANTS["mha"], embeddings(layout), layout, chosen)
    # Cut in the last layer alone, a frame's state can no longer reach the answer.
    plain = last_logits(
        VARIANTS["mha"],
        embeddings(layout),
        EdgeMask(jnp.asarray(layout.cell), jnp.ones((LAYERS, 1, 5, 5), bool)),
    )
    np.testing.assert_allclose(logits[-1], plain, rtol=0, atol=1e-5)
    assert np.abs(logits[0] - plain).max() > 1e-4
