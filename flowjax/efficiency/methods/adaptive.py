"""Sample-adaptive prefill: video leaves when the last position is sure among the options.

`flowjax.inference.adaptive`: after every eighth of the layers the gap between the two most
probable options, as the last position reads there, says whether the video is still needed. The
thresholds here are a line of settings; `flowjax adaptive` chooses one with a guarantee.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Int

from flowjax.efficiency.cut import KEPT_COMPILED
from flowjax.efficiency.method import Applied, Masked, Method, Prefilled, Prompt, Setting, Subject
from flowjax.inference.adaptive import prefill_routed, routed_cost
from flowjax.inference.doubts import Shown, follow, padded_cells, shown
from flowjax.inference.exit_rule import OPTION_GAP
from flowjax.inference.policy import Policy, decisions_of
from flowjax.inference.routes import Routes, compile_routes
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeMask
from flowjax.models.decoder import Decoder, DecoderConfig
from flowjax.models.embedded import Embedded
from flowjax.padding import pad_prompt

DOUBTS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""1 - the gap at which video leaves: from the dearest to the cheapest."""


@dataclass(frozen=True)
class Adaptive:
    """Sets close by a policy."""

    policy: Policy

    @property
    def label(self) -> str:
        """What closes, and when."""
        sure = 1 - self.policy.threshold
        return f"option gap at least {sure:g}, from layer {self.policy.first + 1} on"

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        routes = _routes(prompt.layout, prompt.decoder.config)

        @functools.cache
        def way() -> tuple[int, ...]:
            return follow(self.policy, routes, _along(prompt, routes))

        def masked() -> Masked:
            mask = EdgeMask(padded_cells(prompt.layout), jnp.asarray(routes.padded_table(way())))
            return Masked(pad_prompt(prompt.embedded), mask)

        return Applied(
            prefill_by,
            (prompt.decoder, prompt.embedded, routes, self.policy, jnp.asarray(prompt.letters)),
            masked,
            lambda: routed_cost(routes, way(), self.policy.doubt, value_bytes=prompt.value_bytes),
            lambda _: routes.way(way()),
        )


def prefill_by(
    decoder: Decoder,
    embedded: Embedded,
    routes: Routes,
    policy: Policy,
    letters: Int[Array, " options"],
) -> Prefilled:
    """`prefill_routed`, by a policy."""
    made = prefill_routed(decoder, embedded, routes, policy.closed, policy.doubt, letters)
    return Prefilled(made.logits, made.cache, None)


@functools.lru_cache(KEPT_COMPILED)
def _routes(layout: TokenLayout, config: DecoderConfig) -> Routes:
    """Of prompts that are laid out alike, once."""
    return compile_routes(layout, (), config, decisions=decisions_of(config.layers))


@functools.lru_cache(1)
def _along(prompt: Prompt, routes: Routes) -> Callable[[tuple[int, ...]], Shown]:
    """What a prompt shows along routes, for all of its settings."""
    return shown(prompt.decoder, prompt.embedded, routes, jnp.asarray(prompt.letters))


def _settings(subject: Subject) -> Sequence[Setting]:
    """Video leaves after a quarter of the layers at the earliest."""
    first = max(1, subject.layers // 4)
    return [Adaptive(Policy(OPTION_GAP, at, first, ("video",))) for at in DOUBTS]


METHOD = Method("sample-adaptive", "`flowjax adaptive`", _settings)
