"""Prefill and decoding that leave the decoder early and really skip the layers after that.

The layers run one after the other in loops that end where the rule holds. A prompt's last position
decides for the whole prompt: nothing of the later layers is computed for any row.

A token that is generated later may go deeper than those before it, and then reads keys and values
of layers that these never reached. They are made by *state copying*, as in CALM (Schuster et al.
2022, arXiv 2207.07061): the state at which a position left stands in for its input to every later
layer, whose keys and values are projected from it. The other published way computes the missing
layers when a later token needs them; that makes a token's cost depend on how far all before it
went, and would hold states of the whole prompt beside the cache. Copying costs a skipped layer
its key and value projections: 2% of a layer of Qwen2.5-VL-7B, 16% of one without grouped queries.
What is never read by a later token is not made: a first token alone copies nothing.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flowjax.inference.compile import Compiled, Cut, Stage
from flowjax.inference.exit_rule import ExitRule
from flowjax.inference.prefill import (
    Entries,
    ThinCache,
    entries_of,
    layer_step,
    taken,
    thin_cache,
)
from flowjax.inference.token import Now, now_of, token_step, with_token
from flowjax.models.decoder import Decoder, DecoderLayer
from flowjax.models.embedded import Embedded
from flowjax.models.rope import Rotary
from flowjax.models.stack import layer_at


class Left(NamedTuple):
    """Where a token was read.

    logits: float32 [vocabulary].
    layer: int32 [], the layer after which, counted from 0.
    """

    logits: Float[Array, " vocabulary"]
    layer: Int[Array, ""]


class State(NamedTuple):
    """A forward on its way through the layers.

    x: rows, of which the last decides.
    left: whether it has left; layer: int32 [], after which, or the decoder's last.
    """

    x: Float[Array, "i width"]
    left: Bool[Array, ""]
    layer: Int[Array, ""]


@jax.jit
def first_token(decoder: Decoder, embedded: Embedded, compiled: Compiled, rule: ExitRule) -> Left:
    """Logits after the prompt by a rule, with nothing kept to go on from."""
    state = _begin(decoder, taken(embedded.x, compiled.rows))
    for stage in compiled.stages:
        state, _ = _through_stage(decoder, embedded, compiled, rule, stage, state, keep=False)
    return _read(decoder, state)


@jax.jit
def exit_prefill(
    decoder: Decoder, embedded: Embedded, compiled: Compiled, rule: ExitRule
) -> tuple[Left, ThinCache]:
    """What `flowjax.inference.prefill.prefill` gives, by a rule.

    Args:
        decoder: the model's decoder.
        embedded: the prompt, without padding.
        compiled: the pathway for the prompt's layout.
        rule: when to exit; with the options' letters where it is about them.
    """
    state, prompt = _begin(decoder, taken(embedded.x, compiled.rows)), []
    for stage in compiled.stages:
        state, kept = _through_stage(decoder, embedded, compiled, rule, stage, state, keep=True)
        assert kept is not None
        prompt += [entries_of(kept, cut) for cut in stage.cuts]
    return _read(decoder, state), thin_cache(embedded, compiled, prompt)


@functools.partial(jax.jit, donate_argnames="cache")
def exit_decode(
    decoder: Decoder, cache: ThinCache, compiled: Compiled, token: Int[Array, ""], rule: ExitRule
) -> tuple[Left, ThinCache]:
    """What `flowjax.inference.decode.decode` gives, by a rule (see `ExitRule.of_text`)."""
    now = now_of(decoder, cache, compiled)
    state, updated = _begin(decoder, decoder.embedding(token[None])), []
    for cut, prompt, written in zip(compiled.cuts, cache.prompt, cache.written, strict=True):
        entries = (prompt, written)
        state, own = _through_cut(decoder, compiled, rule, cut, state, now, entries)
        updated.append(own)
    return _read(decoder, state), with_token(cache, updated)


def _begin(decoder: Decoder, x: Float[Array, "i width"]) -> State:
    last = jnp.asarray(decoder.config.layers - 1, jnp.int32)
    return State(x, jnp.zeros((), bool), last)


def _read(decoder: Decoder, state: State) -> Left:
    return Left(decoder.logits(state.x[-1:])[0], state.layer)


Run = Callable[[Array, Int[Array, ""]], tuple[Array, Entries | None]]
"""A layer, by its place among those that run together, on rows: rows, and entries to keep."""

Copy = Callable[[Array, Int[Array, ""]], Entries | None]
"""The entries of a layer that is skipped, from the rows that left before it."""


def _through_stage(
    decoder: Decoder,
    embedded: Embedded,
    compiled: Compiled,
    rule: ExitRule,
    stage: Stage,
    state: State,
    *,
    keep: bool,
) -> tuple[State, Entries | None]:
    """A prompt through a stage; keep: whether to make what decoding reads."""
    rotary = decoder.config.rope(embedded.rope_position, compiled.length)
    step = layer_step(decoder, rotary, embedded, compiled, stage)
    position = taken(stage.source_position, stage.keep)
    of_kept = Rotary(*(table[position] for table in rotary))

    def run(x: Array, place: Array) -> tuple[Array, Entries | None]:
        blocks = jax.tree.map(lambda leaf: leaf[place], stage.blocks)
        x, kept = step(x, stage.first + place, blocks)
        return x, kept.entries if keep else None

    def copy(x: Array, place: Array) -> Entries | None:
        if not keep:
            return None
        layer: DecoderLayer = layer_at(decoder.layers, stage.first + place)
        key, value, _ = layer.sources(taken(taken(x, stage.sources), stage.keep), position, of_kept)
        return Entries(key, value)

    if stage.layers > 1:
        return _layers(decoder, rule, state, stage, run, copy)
    return _one_layer(decoder, rule, state, stage, run, copy)


def _through_cut(
    decoder: Decoder,
    compiled: Compiled,
    rule: ExitRule,
    cut: Cut,
    state: State,
    now: Now,
    entries: tuple[Entries, Entries | None],
) -> tuple[State, Entries | None]:
    """A generated token through the layers of a cut."""
    step = token_step(decoder, compiled, cut, now)

    def run(x: Array, place: Array) -> tuple[Array, Entries | None]:
        prompt, written = jax.tree.map(lambda leaf: leaf[place], entries)
        return step(x, (cut.first + place, prompt, written))

    def copy(x: Array, place: Array) -> Entries | None:
        if not cut.written:
            return None
        layer: DecoderLayer = layer_at(decoder.layers, cut.first + place)
        key, value, _ = layer.sources(x, now.position, now.rotary)
        return Entries(key, value)

    return _layers(decoder, rule, state, cut, run, copy)


def _layers(
    decoder: Decoder, rule: ExitRule, state: State, of: Stage | Cut, run: Run, copy: Copy
) -> tuple[State, Entries | None]:
    """Layers that give as many rows as they read: run until the rule holds, copied from there."""

    def put(kept: Entries | None, own: Entries | None, place: Array) -> Entries | None:
        return jax.tree.map(lambda leaf, new: leaf.at[place].set(new), kept, own)

    def going(carry: tuple) -> Array:
        place, state, _ = carry
        return (place < of.layers) & ~state.left

    def body(carry: tuple) -> tuple:
        place, state, kept = carry
        x, own = run(state.x, place)
        return place + 1, _checked(decoder, rule, state, x, of.first + place), put(kept, own, place)

    start = jnp.zeros((), jnp.int32)
    shapes = jax.eval_shape(copy, state.x, start)
    kept = jax.tree.map(lambda leaf: jnp.zeros((of.layers, *leaf.shape), leaf.dtype), shapes)
    place, state, kept = jax.lax.while_loop(going, body, (start, state, kept))
    if kept is not None:
        x = state.x
        kept = jax.lax.fori_loop(
            place, of.layers, lambda place, kept: put(kept, copy(x, place), place), kept
        )
    return state, kept


def _one_layer(
    decoder: Decoder, rule: ExitRule, state: State, stage: Stage, run: Run, copy: Copy
) -> tuple[State, Entries | None]:
    """A layer that may take rows away."""
    start = jnp.zeros((), jnp.int32)

    def skipped(state: State) -> tuple[State, Entries | None]:
        return state._replace(x=taken(state.x, stage.rows)), copy(state.x, start)

    def through(state: State) -> tuple[State, Entries | None]:
        x, kept = run(state.x, start)
        return _checked(decoder, rule, state, x, jnp.asarray(stage.first)), kept

    state, kept = jax.lax.cond(state.left, skipped, through, state)
    return state, jax.tree.map(lambda leaf: leaf[None], kept)


def _checked(decoder: Decoder, rule: ExitRule, state: State, x: Array, layer: Array) -> State:
    """The state after a layer that ran."""
    left = rule.holds(decoder, x[-1:], layer)
    return State(x, left, jnp.where(left, layer, state.layer).astype(jnp.int32))
