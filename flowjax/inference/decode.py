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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flowjax.errors import FlowjaxError
from flowjax.inference.compile import Compiled, Cut
from flowjax.inference.prefill import Entries, ThinCache, lower_prefill, prefill
from flowjax.masks import NOBODY
from flowjax.models.attention import Sources, attend
from flowjax.models.decoder import Decoder, DecoderLayer
from flowjax.models.embedded import Embedded
from flowjax.models.stack import layer_at


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
    position = (compiled.length + cache.generated)[None]
    rotary = decoder.config.rope((cache.rope + cache.generated)[None, None], compiled.length)
    window = decoder.config.window
    places = jnp.arange(compiled.room, dtype=jnp.int32)
    before = jnp.where(places < cache.generated, compiled.length + places, NOBODY)

    def run(x: Array, cut: Cut, prompt: Entries, written: Entries | None) -> tuple[Array, Any]:
        def step(x: Array, scanned: tuple) -> tuple[Array, Entries | None]:
            index, prompt, written = scanned
            layer: DecoderLayer = layer_at(decoder.layers, index)
            query = layer.queries(x, rotary)
            own = layer.sources(x, position, rotary)
            blocks = [Sources(prompt.key, prompt.value, cut.position)] if len(cut.position) else []
            if written is not None:
                blocks += [Sources(written.key, written.value, before), own]
            attended = jnp.zeros_like(query)
            if blocks:
                edges = compiled.mask.at(index)
                attended = attend(query, position, blocks, edges, window=window).output
            kept = None if written is None else Entries(own.key, own.value)
            return layer.finish(x, attended), kept

        layers = cut.first + jnp.arange(cut.layers)
        return jax.lax.scan(step, x, (layers, prompt, written))

    x = decoder.embedding(token[None])
    updated = []
    for cut, prompt, written in zip(compiled.cuts, cache.prompt, cache.written, strict=True):
        x, own = run(x, cut, prompt, written)
        updated.append(None if written is None else _append(written, own, cache.generated))
    cache = cache._replace(written=tuple(updated), generated=cache.generated + 1)
    return decoder.logits(x)[0], cache


def _append(written: Entries, own: Entries, place: Int[Array, ""]) -> Entries:
    return Entries(
        *(
            jax.lax.dynamic_update_slice_in_dim(entries, new, place, axis=1)
            for entries, new in zip(written, own, strict=True)
        )
    )


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
    """What generation runs, compiled ahead of time for one prompt, pathway and sampling.

    prefill: of decoder, prompt and `pathway`.
    decode: of decoder, cache, `pathway` and token; the cache's buffers are used again.
    choose: of logits and step.
    pathway: the arrays of the compiled pathway.
    """

    prefill: jax.stages.Compiled
    decode: jax.stages.Compiled
    choose: jax.stages.Compiled
    pathway: list[Array]


def programs(
    decoder: Decoder, embedded: Embedded, compiled: Compiled, sampling: Sampling
) -> Programs:
    """Compile everything that generation runs, so that its times are those of running."""
    lowered, pathway = lower_prefill(decoder, embedded, compiled)
    structure = jax.tree.structure(compiled)

    def step(decoder: Decoder, cache: ThinCache, pathway: list[Array], token: Array) -> tuple:
        return decode(decoder, cache, structure.unflatten(pathway), token)

    logits, cache = lowered.out_info
    token = jax.ShapeDtypeStruct((), jnp.int32)
    return Programs(
        lowered.compile(),
        jax.jit(step, donate_argnums=1).lower(decoder, cache, pathway, token).compile(),
        choose.lower(logits, token, sampling).compile(),
        pathway,
    )


def generate(
    decoder: Decoder,
    embedded: Embedded,
    compiled: Compiled,
    *,
    tokens: int,
    sampling: Sampling,
    stop: Collection[int] = (),
    ready: Programs | None = None,
) -> Iterator[int]:
    """Tokens after the prompt, as they come.

    Args:
        decoder: the model's decoder.
        embedded: the prompt.
        compiled: the pathway, with room for `tokens - 1` generated tokens.
        tokens: at most.
        sampling: how tokens are chosen.
        stop: tokens that end the text; they are not given.
        ready: what `programs` compiled for these arguments; None compiles what a call is the
            first to need, and shares it with later calls.

    Raises:
        FlowjaxError: `tokens` is less than 1.
    """
    if tokens < 1:
        raise FlowjaxError(f"tokens to generate: {tokens}; at least 1 is needed")
    if compiled.room < tokens - 1:
        raise ValueError(f"room for {compiled.room} generated tokens, not {tokens - 1}")
    if ready is None:
        logits, cache = prefill(decoder, embedded, compiled)
    else:
        logits, cache = ready.prefill(decoder, embedded, ready.pathway)
    for step in range(tokens):
        index = jnp.asarray(step, jnp.int32)
        token = choose(logits, index, sampling) if ready is None else ready.choose(logits, index)
        if int(token) in stop:
            return
        yield int(token)
        if step == tokens - 1:
            return
        if ready is None:
            logits, cache = decode(decoder, cache, compiled, token)
        else:
            logits, cache = ready.decode(decoder, cache, ready.pathway, token)
