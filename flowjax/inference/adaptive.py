"""Sample-adaptive prefill: one pass in which what has been computed says which edges stay open.

Before a layer of `Routes.decisions` the host looks at what the segment before it reads as, chooses
how many edge sets are closed from there on, and calls the static program that goes on with the rows
that are left. A decision reads layers before it only, and costs a few numbers' way to the host.
Every segment keeps what its edges let a generated token read, so decoding goes on from
`Routed.cache` with `Routes.way(Routed.way)` as after any other prefill.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.inference.compile import Compiled, Stage
from flowjax.inference.cost import PrefillCost
from flowjax.inference.exit_rule import ENTROPY, OPTION_GAP, confidence
from flowjax.inference.policy import ATTENTION, Doubt
from flowjax.inference.prefill import Entries, ThinCache, entries_of, layer_step, taken, thin_cache
from flowjax.inference.routes import SETS, Probe, Routes, Segment, ends_of
from flowjax.models.attention import Sources, attend
from flowjax.models.cost import LayerCost
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded


class Routed(NamedTuple):
    """A prefill along a route.

    logits: float32 [vocabulary].
    cache: for decoding.
    way: how many sets were closed in every segment.
    """

    logits: Float[Array, " vocabulary"]
    cache: ThinCache
    way: tuple[int, ...]


Choose = Callable[[int, Float[np.ndarray, " open"], int], int]
"""Sets closed before, doubts of the open ones and the layer, to sets closed from it on."""


def prefill_routed(
    decoder: Decoder,
    embedded: Embedded,
    routes: Routes,
    choose: Choose,
    doubt: Doubt,
    letters: Int[Array, " options"] | None = None,
) -> Routed:
    """Prefill along the route that is chosen on the way.

    Args:
        decoder: the model's decoder.
        embedded: the prompt, without padding.
        routes: of the prompt's layout.
        choose: such as `Policy.closed`.
        doubt: what it is told.
        letters: token ids of the options, for "option-gap".
    """
    walk = Walk(embedded.x, (), ())
    doubts = np.zeros(len(SETS))
    for index, (layer, _) in enumerate(routes.bounds):
        before = walk.way[-1] if index else 0
        closed = choose(before, doubts, layer) if index else 0
        walk, told = go_on(decoder, embedded, routes, walk, closed, doubt, letters)
        doubts = np.asarray(told)
    return arrive(decoder, embedded, routes, walk)


class Walk(NamedTuple):
    """A prefill on its way: rows after the last segment, the route so far, and what is kept."""

    x: Float[Array, "i width"]
    way: tuple[int, ...]
    entries: tuple[Entries, ...]


def go_on(
    decoder: Decoder,
    embedded: Embedded,
    routes: Routes,
    walk: Walk,
    closed: int,
    doubt: Doubt,
    letters: Int[Array, " options"] | None,
) -> tuple[Walk, Float[Array, " open"]]:
    """One segment more with so many sets closed, and the doubts of those that are open after it."""
    index = len(walk.way)
    before = walk.way[-1] if index else 0
    x, entries, doubts = run_segment(
        decoder,
        _rows(walk.x, routes.step(before, closed, index)),
        embedded._replace(x=embedded.x[:0]),
        routes.grounds[closed],
        routes.segment(closed, index),
        letters if doubt == OPTION_GAP else None,
        doubt=doubt,
    )
    return Walk(x, (*walk.way, closed), (*walk.entries, *entries)), doubts


def arrive(decoder: Decoder, embedded: Embedded, routes: Routes, walk: Walk) -> Routed:
    """The logits and the cache after the last segment."""
    cache = thin_cache(embedded, routes.way(walk.way), walk.entries)
    return Routed(_logits(decoder, walk.x), cache, walk.way)


_rows = jax.jit(taken)


@jax.jit
def _logits(decoder: Decoder, x: Float[Array, "1 width"]) -> Float[Array, " vocabulary"]:
    return decoder.logits(x)[0]


@functools.partial(jax.jit, static_argnames="doubt")
def run_segment(
    decoder: Decoder,
    x: Float[Array, "i width"],
    embedded: Embedded,
    ground: Compiled,
    segment: Segment,
    letters: Int[Array, " options"] | None,
    *,
    doubt: Doubt,
) -> tuple[Float[Array, "r width"], list[Entries], Float[Array, " open"]]:
    """The rows after a segment, what decoding reads of it, and the doubts at its end.

    Args:
        decoder: the model's decoder.
        x: the rows that the segment reads.
        embedded: the prompt, for its rotary positions and DeepStack features.
        ground: the edges and the length.
        segment: its layers.
        letters: token ids of the options, for "option-gap".
        doubt: what is told.
    """
    entries: list[Entries] = []
    doubts = jnp.zeros(len(segment.probes))
    for stage in segment.stages:
        asked = stage is segment.stages[-1] and doubt == ATTENTION
        x, kept, seen = _run_stage(decoder, x, embedded, ground, stage, segment if asked else None)
        entries += [entries_of(kept, cut) for cut in stage.cuts]
        doubts = doubts if seen is None else seen
    if segment.probes and doubt == ENTROPY:
        share = -confidence(decoder, x[-1:], ENTROPY, None) / np.log(decoder.config.vocabulary)
        doubts += share
    if segment.probes and doubt == OPTION_GAP:
        doubts += 1 - confidence(decoder, x[-1:], OPTION_GAP, letters)
    return x, entries, doubts


def _run_stage(
    decoder: Decoder,
    x: Float[Array, "i width"],
    embedded: Embedded,
    ground: Compiled,
    stage: Stage,
    seen_by: Segment | None,
) -> tuple[Float[Array, "r width"], Entries, Float[Array, " open"] | None]:
    """A stage; with a segment whose last one it is, also the attention that its probes see."""
    rotary = decoder.config.rope(embedded.rope_position, ground.length)
    look = None
    if seen_by is not None and seen_by.probes and len(stage.source_position):
        look = functools.partial(_look, decoder.config.window, ground, stage, seen_by)
    step = layer_step(decoder, rotary, embedded, ground, stage, look=look)
    layers = stage.first + jnp.arange(stage.layers)
    if stage.layers > 1:
        x, kept = jax.lax.scan(lambda x, of: step(x, *of), x, (layers, stage.blocks))
    else:
        x, kept = step(x, *jax.tree.map(lambda leaf: leaf[0], (layers, stage.blocks)))
        kept = jax.tree.map(lambda leaf: leaf[None], kept)
    return x, kept.entries, None if kept.seen is None else kept.seen[-1]


def _look(
    window: int | None,
    ground: Compiled,
    stage: Stage,
    segment: Segment,
    query: Float[Array, "r heads d"],
    sources: Sources,
    index: Int[Array, ""],
) -> Float[Array, " open"]:
    """The share of attention along each open set, in the segment's last layer alone."""
    edges = ground.mask.at(index)

    def see(probe: Probe | None) -> Array:
        if probe is None:
            return jnp.zeros(())
        rows = stage.row_position[probe.rows]
        weights = attend(query[probe.rows], rows, [sources], edges, window=window).weights
        return jnp.mean(weights @ probe.reads)

    return jax.lax.cond(
        index == segment.last,
        lambda: jnp.stack([see(probe) for probe in segment.probes]),
        lambda: jnp.zeros(len(segment.probes)),
    )


def routed_cost(
    routes: Routes, way: tuple[int, ...], doubt: Doubt, *, value_bytes: int
) -> PrefillCost:
    """What the rows of a route need, and its decisions; blocks are not counted."""
    cost, config = LayerCost(routes.config), routes.config
    layers = [
        (closed, layer)
        for closed, bounds in zip(way, routes.bounds, strict=True)
        for layer in range(*bounds)
    ]
    computed = [routes.rows[closed][layer] for closed, layer in layers]
    edges = sum(routes.edges(closed, layer) for closed, layer in layers)
    rows = sum(len(of.rows) for of in computed)
    sources = sum(len(of.sources) for of in computed)
    flops = rows * cost.row + sources * cost.source + edges * cost.edge + cost.logits
    if doubt == ENTROPY:
        flops += sum(closed < len(SETS) for closed in way[:-1]) * cost.logits
    elif doubt == ATTENTION:
        seen = sum(
            len(np.intersect1d(at.rows, targets)) * len(np.intersect1d(at.sources, sources))
            for closed, (_, end) in zip(way[:-1], routes.bounds, strict=False)
            for at in (routes.rows[closed][end - 1],)
            for targets, sources in (ends_of(routes.layout, name) for name in SETS[closed:])
        )
        flops += config.heads * seen * cost.edge // 2  # scores alone
    cached = sum(len(of.cache) for of in computed)
    return PrefillCost(flops, edges, 0, cached * cost.cached * value_bytes)
