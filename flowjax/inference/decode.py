"""Decoding with a thinned cache: greedy or sampled, one token at a time.

A generated token takes the role of the prompt's final position: it is of the same cell, so it
reads in every layer what that position may read. The edge `last -> last` decides, for each layer,
whether it reads itself and the tokens generated before it; where the pathway cuts it, as the
paper's do in every layer, a generated token knows of the others only through its own residual.
So decoding equals whole forwards under the same mask with the prompt's cells continued.

Rotary variants that depend on the length of the sequence keep that of the prompt, since keys in
the cache are already rotated.
"""

import functools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flowjax.errors import FlowjaxError
from flowjax.inference.compile import Compiled
from flowjax.inference.exit import Left, exit_decode, exit_prefill
from flowjax.inference.exit_rule import ExitRule
from flowjax.inference.prefill import ThinCache, prefill
from flowjax.inference.token import now_of, token_step, with_token
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded


@functools.partial(jax.jit, donate_argnames="cache")
def decode(
    decoder: Decoder, cache: ThinCache, compiled: Compiled, token: Int[Array, ""]
) -> tuple[Float[Array, " vocabulary"], ThinCache]:
    """Logits after one more token.

    Args:
        decoder: the model's decoder.
        cache: of the prompt and the tokens before this one; its buffers are used again.
        compiled: that the cache was made with; its `room` must hold one token more.
        token: the new token.

    Returns:
        float32 [vocabulary], and the cache with the new token in it.
    """
    now = now_of(decoder, cache, compiled)
    x = decoder.embedding(token[None])
    updated = []
    for cut, prompt, written in zip(compiled.cuts, cache.prompt, cache.written, strict=True):
        layers = cut.first + jnp.arange(cut.layers)
        step = token_step(decoder, compiled, cut, now)
        x, own = jax.lax.scan(step, x, (layers, prompt, written))
        updated.append(own)
    return decoder.logits(x)[0], with_token(cache, updated)


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.

    temperature: 0 takes the most probable token.
    top_p: draw only among the most probable tokens that together have this probability (nucleus
        sampling, Holtzman et al. 2020, arXiv 1904.09751).
    seed: the same seed, the same tokens.

    Raises:
        FlowjaxError: a value out of range.
    """

    temperature: int | float = 0.0
    top_p: int | float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.temperature < float("inf"):
            raise FlowjaxError(f"temperature {self.temperature}: it must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise FlowjaxError(f"top-p {self.top_p}: it must be above 0 and at most 1")
        if self.seed < 0:
            raise FlowjaxError(f"seed {self.seed}: it must be at least 0")


@functools.partial(jax.jit, static_argnames="sampling")
def choose(
    logits: Float[Array, " vocabulary"], step: Int[Array, ""], sampling: Sampling
) -> Int[Array, ""]:
    """The token of one step: int32."""
    if sampling.temperature == 0:
        return jnp.argmax(logits).astype(jnp.int32)
    order = jnp.argsort(-logits)
    probability = jax.nn.softmax(logits[order] / sampling.temperature)
    before = jnp.cumsum(probability) - probability
    scores = jnp.where(before < sampling.top_p, jnp.log(probability), -jnp.inf)
    key = jax.random.fold_in(jax.random.key(sampling.seed), step)
    return order[jax.random.categorical(key, scores)].astype(jnp.int32)


class Programs(NamedTuple):
    """What generation runs, compiled ahead of time for one prompt, pathway, sampling and exit rule.

    prefill: of decoder, prompt and `pathway`.
    decode: of decoder, cache, `pathway` and token; the cache's buffers are used again.
    choose: of logits and step.
    pathway: the arrays of the compiled pathway and of the rule.
    """

    prefill: jax.stages.Compiled
    decode: jax.stages.Compiled
    choose: jax.stages.Compiled
    pathway: list[Array]


def programs(
    decoder: Decoder,
    embedded: Embedded,
    compiled: Compiled,
    sampling: Sampling,
    rule: ExitRule | None = None,
) -> Programs:
    """Compile everything that generation runs, so that its times are those of running."""
    pathway, structure = jax.tree.flatten((compiled, rule))

    def run(decoder: Decoder, embedded: Embedded, pathway: list[Array]) -> tuple:
        return begin(decoder, embedded, *structure.unflatten(pathway))

    def step(decoder: Decoder, cache: ThinCache, pathway: list[Array], token: Array) -> tuple:
        compiled, rule = structure.unflatten(pathway)
        return go_on(decoder, cache, compiled, token, None if rule is None else rule.of_text)

    lowered = jax.jit(run).lower(decoder, embedded, pathway)
    left, cache = lowered.out_info
    token = jax.ShapeDtypeStruct((), jnp.int32)
    return Programs(
        lowered.compile(),
        jax.jit(step, donate_argnums=1).lower(decoder, cache, pathway, token).compile(),
        choose.lower(left.logits, token, sampling).compile(),
        pathway,
    )


def begin(
    decoder: Decoder, embedded: Embedded, compiled: Compiled, rule: ExitRule | None
) -> tuple[Left, ThinCache]:
    """Prefill, by a rule where there is one."""
    if rule is not None:
        return exit_prefill(decoder, embedded, compiled, rule)
    logits, cache = prefill(decoder, embedded, compiled)
    return Left(logits, jnp.asarray(decoder.config.layers - 1, jnp.int32)), cache


def go_on(
    decoder: Decoder,
    cache: ThinCache,
    compiled: Compiled,
    token: Int[Array, ""],
    rule: ExitRule | None,
) -> tuple[Left, ThinCache]:
    """One token more, by a rule where there is one."""
    if rule is not None:
        return exit_decode(decoder, cache, compiled, token, rule)
    logits, cache = decode(decoder, cache, compiled, token)
    return Left(logits, jnp.asarray(decoder.config.layers - 1, jnp.int32)), cache


class Token(NamedTuple):
    """A generated token, and the layer after which it was read, counted from 0."""

    id: int
    layer: int


def generate(
    decoder: Decoder,
    embedded: Embedded,
    compiled: Compiled,
    *,
    tokens: int,
    sampling: Sampling,
    stop: Collection[int] = (),
) -> Iterator[int]:
    """Tokens after the prompt, as they come; see `generate_by`."""
    made = generate_by(
        decoder, embedded, compiled, tokens=tokens, sampling=sampling, stop=stop, rule=None
    )
    return (token.id for token in made)


def generate_by(
    decoder: Decoder,
    embedded: Embedded,
    compiled: Compiled,
    *,
    tokens: int,
    sampling: Sampling,
    stop: Collection[int] = (),
    rule: ExitRule | None,
    ready: Programs | None = None,
) -> Iterator[Token]:
    """Tokens after the prompt and where each was read, as they come.

    Args:
        decoder: the model's decoder.
        embedded: the prompt.
        compiled: the pathway, with room for `tokens - 1` generated tokens.
        tokens: at most.
        sampling: how tokens are chosen.
        stop: tokens that end the text; they are not given.
        rule: when to exit early; None computes every layer.
        ready: what `programs` compiled for these arguments; None compiles what a call is the
            first to need, and shares it with later calls.

    Raises:
        FlowjaxError: `tokens` is less than 1.
    """
    if tokens < 1:
        raise FlowjaxError(f"tokens to generate: {tokens}; at least 1 is needed")
    if compiled.room < tokens - 1:
        raise ValueError(f"room for {compiled.room} generated tokens, not {tokens - 1}")
    later = None if rule is None else rule.of_text
    if ready is None:
        left, cache = begin(decoder, embedded, compiled, rule)
    else:
        left, cache = ready.prefill(decoder, embedded, ready.pathway)
    for step in range(tokens):
        index, logits = jnp.asarray(step, jnp.int32), left.logits
        token = choose(logits, index, sampling) if ready is None else ready.choose(logits, index)
        if int(token) in stop:
            return
        yield Token(int(token), int(left.layer))
        if step == tokens - 1:
            return
        if ready is None:
            left, cache = go_on(decoder, cache, compiled, token, later)
        else:
            left, cache = ready.decode(decoder, cache, ready.pathway, token)
