"""Routes against masked full forwards, and the programs that they share."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.edges import dense
from flowjax.errors import FlowjaxError
from flowjax.inference.adaptive import prefill_routed, routed_cost, run_segment
from flowjax.inference.compile import compile_pathway
from flowjax.inference.cost import compiled_cost
from flowjax.inference.decode import decode
from flowjax.inference.doubts import follow, shown
from flowjax.inference.policy import Policy
from flowjax.inference.prefill import prefill
from flowjax.inference.routes import compile_routes
from flowjax.masks import EdgeMask
from flowjax.models.decoder import Keep
from flowjax.pathway import Pathway
from tests.inference.masked import VARIANTS, embedded, logits_at
from tests.sweeps.test_engine import LAYERS, long_layout

LAYOUT = long_layout(12)
LETTERS = jnp.array([3, 5, 8], jnp.int32)
CONFIG = VARIANTS["mha"].config
STRICT = Pathway("p", "strict", LAYERS, (0, 1), (0, 1, 2), (1, 2, 3), (0, 1, 2, 3))


def routes_of(config=CONFIG, cut=(), **options):
    options = {"decisions": (1, 2, 3), "room": 2, "blocks": (16, 16)} | options
    return compile_routes(LAYOUT, cut, config, **options)


def along(way, seen=None):
    """Chooses this route, whatever the doubts are."""
    closed = iter(way[1:])

    def choose(before, doubts, layer):
        if seen is not None:
            seen.append((layer, before, doubts))
        return next(closed)

    return choose


def masked(decoder, x, routes, way, tokens):
    """Logits after the prompt and after each of some tokens, of whole forwards under a mask."""
    more = len(tokens)
    group = np.pad(LAYOUT.cell, (0, more), constant_values=LAYOUT.cell[-1])
    mask = EdgeMask(jnp.asarray(group), jnp.asarray(routes.table(way)))
    start = int(x.rope_position.max()) + 1
    following = jnp.broadcast_to(start + jnp.arange(more), (len(x.rope_position), more))
    long = x.padded(LAYOUT.length + more)._replace(
        rope_position=jnp.concatenate([x.rope_position, following], axis=1)
    )
    for place, token in enumerate(tokens, LAYOUT.length):
        long = long._replace(x=long.x.at[place].set(decoder.embedding(jnp.asarray(token))))
    return [logits_at(decoder, long, mask, LAYOUT.length - 1 + at) for at in range(more + 1)]


@pytest.mark.parametrize(("name", "cut"), [("mha", STRICT.knockouts(LAYOUT)), ("window", ())])
def test_routes_equal_their_masks(name, cut):
    decoder = VARIANTS[name]
    x = embedded(decoder, LAYOUT, deepstack=2)
    routes = routes_of(decoder.config, cut, decisions=(1, 3))
    tokens = (7, 30)
    for way in [(0, 0, 0), (0, 1, 3), (0, 2, 2)]:
        routed = prefill_routed(decoder, x, routes, along(way), "attention")
        assert routed.way == way
        expected = masked(decoder, x, routes, way, tokens)
        np.testing.assert_allclose(routed.logits, expected[0], rtol=0, atol=1e-5)
        cache, compiled = routed.cache, routes.way(way)
        for token, after in zip(tokens, expected[1:], strict=True):
            logits, cache = decode(decoder, cache, compiled, jnp.asarray(token))
            np.testing.assert_allclose(logits, after, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("cut", [(), STRICT.knockouts(LAYOUT)], ids=["all edges", "strict"])
def test_every_route_of_every_variant(name, cut):
    decoder = VARIANTS[name]
    x = embedded(decoder, LAYOUT, deepstack=2)
    routes = routes_of(decoder.config, cut)
    for way in itertools.product(range(4), repeat=4):
        if way[0] or list(way) != sorted(way):
            continue
        routed = prefill_routed(decoder, x, routes, along(way), "attention")
        (expected,) = masked(decoder, x, routes, way, ())
        np.testing.assert_allclose(routed.logits, expected, rtol=0, atol=1e-5)


def test_a_pass_without_decisions_is_plain_prefill():
    decoder = VARIANTS["gqa, biases"]
    x = embedded(decoder, LAYOUT)
    routes = routes_of(decoder.config, decisions=())
    routed = prefill_routed(decoder, x, routes, Policy("attention", 1.0, 0).closed, "attention")
    logits, _ = prefill(decoder, x, compile_pathway(LAYOUT, (), decoder.config, blocks=(16, 16)))
    assert routed.way == (0,)
    np.testing.assert_allclose(routed.logits, logits, rtol=0, atol=1e-6)


def test_doubts_are_what_a_whole_forward_shows():
    decoder = VARIANTS["qk-norm, three axes"]
    x = embedded(decoder, LAYOUT)
    routes = routes_of(decoder.config)
    way = (0, 0, 1, 1)
    mask = EdgeMask(jnp.asarray(LAYOUT.cell), jnp.asarray(routes.table(way)))
    every = Keep(hidden=True, attention=jnp.arange(LAYOUT.length))
    trace = jax.jit(lambda: decoder(x, mask, keep=every))()
    weights = np.asarray(trace.attention.mean(axis=1))  # over heads
    video, cell = LAYOUT.positions("video"), LAYOUT.cell
    newest = np.flatnonzero(cell == cell[video[-1]])
    older = video[cell[video] != cell[video[-1]]]
    text = np.arange(video[-1] + 1, LAYOUT.length)
    question = np.concatenate([LAYOUT.positions(name) for name in ("question", "instruction")])
    seen = []
    prefill_routed(decoder, x, routes, along(way, seen), "attention")
    for layer, closed, doubts in seen:
        of = weights[layer - 1]
        expected = [
            of[newest][:, older].sum(axis=1).mean(),
            of[text][:, video].sum(axis=1).mean(),
            of[-1, question].sum(),
        ]
        np.testing.assert_allclose(doubts, expected[closed:], atol=1e-5)
    for doubt in ("entropy", "option-gap"):
        seen = []
        prefill_routed(decoder, x, routes, along(way, seen), doubt, LETTERS)
        for layer, closed, doubts in seen:
            logits = np.asarray(decoder.logits(trace.hidden[layer, -1][None])[0], np.float64)
            if doubt == "option-gap":
                logits = logits[np.asarray(LETTERS)]
            probability = np.exp(logits) / np.exp(logits).sum()
            second, first = np.sort(probability)[-2:]
            entropy = -(probability * np.log(probability)).sum() / np.log(50)
            expected = entropy if doubt == "entropy" else 1 - (first - second)
            np.testing.assert_allclose(doubts, [expected] * (3 - closed), atol=1e-5)


def test_a_second_sample_of_the_shape_compiles_nothing():
    decoder, routes = VARIANTS["mqa, tied"], routes_of(VARIANTS["mqa, tied"].config)
    programs: Any = run_segment
    before, seen = programs._cache_size(), []
    for way in [(0, 0, 0, 3), (0, 0, 3, 3), (0, 3, 3, 3), (0, 0, 0, 0)]:
        seen.clear()
        prefill_routed(decoder, embedded(decoder, LAYOUT), routes, along(way, seen), "entropy")
    made = programs._cache_size() - before
    assert made == 4 + 3  # all open four times, all closed in three segments
    ways = set()
    for seed, (_, _, doubts) in itertools.product(range(3), seen):
        policy = Policy("entropy", float(doubts[0]), 1)
        x = embedded(decoder, LAYOUT, seed=seed)
        ways.add(prefill_routed(decoder, x, routes, policy.closed, policy.doubt).way)
    assert len(ways) > 1
    assert programs._cache_size() - before == made


def test_what_closes_costs_no_more():
    routes = routes_of()
    ways = [w for w in itertools.product(range(4), repeat=4) if w[0] == 0 and sorted(w) == [*w]]
    cost = {way: routed_cost(routes, way, "layer", value_bytes=4) for way in ways}
    for one, other in itertools.product(ways, ways):
        if all(a <= b for a, b in zip(one, other, strict=True)):
            assert cost[one].flops >= cost[other].flops
            assert cost[one].cache_bytes >= cost[other].cache_bytes
    whole = compile_pathway(LAYOUT, (), CONFIG, blocks=(16, 16))
    plain = compiled_cost(whole, CONFIG, value_bytes=4)
    assert cost[0, 0, 0, 0] == dataclasses.replace(plain, blocks=0)
    # Stages project a few rows that nobody reads rather than to take them out.
    for way in [(0, 1, 1, 2), (0, 0, 2, 3)]:
        run = compiled_cost(routes.way(way), CONFIG, value_bytes=4)
        assert run.edges == cost[way].edges and run.cache_bytes == cost[way].cache_bytes
        assert cost[way].flops <= run.flops < 1.02 * cost[way].flops
    assert cost[0, 2, 2, 2].flops < 0.7 * cost[0, 0, 0, 0].flops
    looked = routed_cost(routes, (0, 0, 0, 0), "entropy", value_bytes=4).flops
    assert looked - cost[0, 0, 0, 0].flops == 3 * 2 * CONFIG.width * CONFIG.vocabulary


@pytest.mark.parametrize(
    "policy",
    [
        Policy("attention", 0.45, 1),
        Policy("attention", 0.7, 1, ("video",)),
        Policy("entropy", 0.95, 2, ("video",)),
        Policy("option-gap", 0.9, 1),
        Policy("layer", 0.0, 2, ("cross_frame", "video")),
    ],
    ids=lambda policy: policy.doubt,
)
def test_policies_take_the_route_that_masks_show(policy):
    decoder = VARIANTS["mha"]
    routes = routes_of(cut=STRICT.knockouts(LAYOUT))
    for seed in range(3):
        x = embedded(decoder, LAYOUT, seed=seed)
        along_mask = shown(decoder, x, routes, LETTERS)
        way = follow(policy, routes, along_mask)
        routed = prefill_routed(decoder, x, routes, policy.closed, policy.doubt, LETTERS)
        assert routed.way == way
        np.testing.assert_allclose(routed.logits, along_mask(way).logits, rtol=0, atol=1e-5)


def test_sets_close_in_order_and_only_when_doubts_are_small():
    policy = Policy("attention", 0.1, 2)
    assert policy.closed(0, np.array([0.0, 0.0, 0.0]), 1) == 0
    assert policy.closed(0, np.array([0.05, 0.1, 0.3]), 2) == 2
    assert policy.closed(0, np.array([0.5, 0.0, 0.0]), 2) == 0
    assert policy.closed(1, np.array([0.05, 0.01]), 3) == 3
    assert Policy("attention", -1.0, 0).closed(0, np.zeros(3), 3) == 0
    of_video = Policy("attention", 0.1, 0, ("video",))
    assert of_video.closed(0, np.array([0.9, 0.1, 0.0]), 1) == 2
    assert of_video.closed(0, np.array([0.0, 0.2, 0.0]), 1) == 0
    assert of_video.closed(2, np.array([0.0]), 1) == 2


def test_what_the_attention_mask_leaves():
    """Video that is closed is read by nothing, and question by nothing after that."""
    routes = routes_of()
    allowed = dense(LAYOUT, routes.table((0, 1, 2, 3)))[:, 0]
    video = LAYOUT.positions("video")
    assert allowed[1][:, video].any() and not allowed[2][:, video].any()
    question = LAYOUT.positions("question")
    assert allowed[2][-1, question].all() and not allowed[3][:, question].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decisions": (0,)}, "decision before layer 0: sets close before layers 1 to 3"),
        ({"decisions": (4,)}, "decision before layer 4"),
    ],
)
def test_routes_that_cannot_be(options, message):
    with pytest.raises(FlowjaxError, match=message):
        routes_of(**options)
