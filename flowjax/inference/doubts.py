"""Doubts of policies, of whole forwards under the mask of a route.

What a prefill along a route sees on its way is what the plain decoder shows under the route's mask,
whose programs are shared by prompts of many lengths and by all routes. So policies are compared
with each other here, and run by `flowjax.inference.adaptive`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.inference.exit_rule import ENTROPY, OPTION_GAP
from flowjax.inference.policy import ATTENTION, Doubt, Policy
from flowjax.inference.routes import SETS, Routes, ends_of
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeMask, Mask
from flowjax.models.decoder import Decoder, Keep
from flowjax.models.embedded import Embedded
from flowjax.padding import LENGTH_STEP, pad_prompt, round_up
from flowjax.precision import PRECISION


class Shown(NamedTuple):
    """What a forward shows.

    logits: float32 [vocabulary], after the prompt.
    attention: float32 [layers, sets], the share along each of `SETS`.
    entropy, option_gap: float32 [layers], of what the last position reads as after each layer: in
        nats, and the difference of the two most probable options.
    """

    logits: Float[Array, " vocabulary"]
    attention: Float[Array, "layers sets"]
    entropy: Float[Array, " layers"]
    option_gap: Float[Array, " layers"]

    def doubts(self, doubt: Doubt, layer: int, closed: int) -> Float[np.ndarray, " open"]:
        """What a policy is told before a layer, with so many sets closed."""
        if doubt == ATTENTION:
            return np.asarray(self.attention)[layer - 1, closed:]
        value = 0.0
        if doubt == ENTROPY:
            value = float(self.entropy[layer - 1]) / np.log(len(self.logits))
        elif doubt == OPTION_GAP:
            value = 1 - float(self.option_gap[layer - 1])
        return np.full(len(SETS) - closed, value)


@dataclass(frozen=True, eq=False)
class Ends:
    """Where the attention along the sets is seen, padded so that prompts share programs.

    rows: int32 [r], positions.
    share: float32 [sets, r], of each in the mean of a set.
    reads: float32 [sets, n], 1 where a position is one of those that the set reads.
    """

    rows: Int[Array, " r"]
    share: Float[Array, "sets r"]
    reads: Float[Array, "sets n"]

    @classmethod
    def of(cls, layout: TokenLayout) -> "Ends":
        """Of a prompt that `pad_prompt` pads."""
        ends = [ends_of(layout, name) for name in SETS]
        rows = np.unique(np.concatenate([targets for targets, _ in ends]))
        share = np.zeros((len(SETS), round_up(len(rows), LENGTH_STEP)), np.float32)
        reads = np.zeros((len(SETS), round_up(layout.length, LENGTH_STEP)), np.float32)
        for index, (targets, sources) in enumerate(ends):
            share[index, : len(rows)] = np.isin(rows, targets) / len(targets)
            reads[index, sources] = 1
        padded = np.resize(rows, share.shape[1])
        return cls(jnp.asarray(padded, jnp.int32), jnp.asarray(share), jnp.asarray(reads))


def shown(
    decoder: Decoder,
    embedded: Embedded,
    routes: Routes,
    letters: Int[Array, " options"],
) -> Callable[[tuple[int, ...]], Shown]:
    """What a prompt shows along any route; each is computed once."""
    layout, known = routes.layout, dict[tuple[int, ...], Shown]()
    ends, prompt = Ends.of(layout), pad_prompt(embedded)
    cell = padded_cells(layout)

    def along(way: tuple[int, ...]) -> Shown:
        if way not in known:
            mask = decoder.blocked(EdgeMask(cell, jnp.asarray(routes.padded_table(way))))
            shows = _show(decoder, prompt, mask, letters, ends.rows, ends.share, ends.reads)
            known[way] = jax.device_get(shows)
        return known[way]

    return along


def padded_cells(layout: TokenLayout) -> Int[Array, " n"]:
    """The cell of every position of a prompt that `pad_prompt` pads."""
    more = round_up(layout.length, LENGTH_STEP) - layout.length
    return jnp.asarray(np.pad(layout.cell, (0, more)), jnp.int32)


def follow(
    policy: Policy, routes: Routes, along: Callable[[tuple[int, ...]], Shown]
) -> tuple[int, ...]:
    """The route that a policy takes: how many sets are closed in every segment."""
    way: tuple[int, ...] = (0,)
    segments = len(routes.bounds)
    for layer, _ in routes.bounds[1:]:
        now = way[-1]
        told = along((*way, *[now] * (segments - len(way)))).doubts(policy.doubt, layer, now)
        way = (*way, policy.closed(now, told, layer))
    return way


@jax.jit
def _show(
    decoder: Decoder,
    prompt: Embedded,
    mask: Mask,
    letters: Int[Array, " options"],
    rows: Int[Array, " r"],
    share: Float[Array, "sets r"],
    reads: Float[Array, "sets n"],
) -> Shown:
    trace = decoder(prompt, mask, keep=Keep(hidden=True, attention=rows))
    assert trace.hidden is not None and trace.attention is not None
    weights = trace.attention.mean(axis=1)
    attention = jnp.einsum("sr,lrn,sn->ls", share, weights, reads, precision=PRECISION)
    after = jnp.concatenate([trace.hidden[1:, prompt.last], trace.output[prompt.last][None]])
    logits = decoder.logits(after)
    log = jax.nn.log_softmax(logits)
    second, first = jnp.sort(jax.nn.softmax(logits[:, letters]))[:, -2:].T
    return Shown(logits[-1], attention, -jnp.sum(jnp.exp(log) * log, axis=1), first - second)
