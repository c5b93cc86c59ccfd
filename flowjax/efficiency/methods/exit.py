"""Early exit: the answer is read after the first layer at which the options' gap is wide enough.

Confident adaptive language modelling (Schuster et al. 2022, arXiv 2207.07061), its softmax response
taken among the options' letters, with state copying for the layers that are skipped: decoding goes
on from keys and values that are projected from the state at the exit, which is counted here.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from flowjax.efficiency.cut import compile_kept, cost_of
from flowjax.efficiency.method import Applied, Masked, Method, Prefilled, Prompt, Setting, Subject
from flowjax.inference.compile import Compiled
from flowjax.inference.cost import PrefillCost
from flowjax.inference.exit import exit_prefill
from flowjax.inference.exit_rule import OPTION_GAP, ExitRule
from flowjax.lens.early_exit import exits, option_probabilities
from flowjax.models.cost import LayerCost
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.padding import pad_prompt, padded_mask

GAPS = (0.99, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3, 0.0)
"""Between the two most probable options, at which to leave: from the dearest to the cheapest."""


@dataclass(frozen=True)
class Exit:
    """Leave at a gap, after the layer `first`, counted from 0, at the earliest."""

    gap: float
    first: int

    @property
    def label(self) -> str:
        """The gap and the layer."""
        return f"option gap at least {self.gap:g}, after layer {self.first + 1} or later"

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        layers = prompt.decoder.config.layers
        whole = compile_kept(prompt.layout, (), prompt.decoder.config)
        rule = ExitRule(OPTION_GAP, jnp.asarray(self._thresholds(layers)))

        @functools.cache
        def left() -> int:
            if self.gap <= 0:
                return self.first
            return int(exits(_gaps(prompt)[None], self._thresholds(layers))[0])

        def masked() -> Masked:
            mask = padded_mask(prompt.layout, (), prompt.decoder.config)
            return Masked(pad_prompt(prompt.embedded), mask, left())

        return Applied(
            prefill_until,
            (prompt.decoder, prompt.embedded, whole, rule.among(prompt.letters)),
            masked,
            lambda: _cost(prompt, whole, left()),
            lambda _: whole,
        )

    def _thresholds(self, layers: int) -> np.ndarray:
        """Float32 [layers], of a rule; the last layer needs none."""
        thresholds = np.full(layers, self.gap, np.float32)
        thresholds[: self.first] = np.inf
        thresholds[-1] = 0
        return thresholds


@jax.jit
def prefill_until(
    decoder: Decoder, embedded: Embedded, compiled: Compiled, rule: ExitRule
) -> Prefilled:
    """`exit_prefill` by a rule."""
    left, cache = exit_prefill(decoder, embedded, compiled, rule)
    return Prefilled(left.logits, cache, None)


@functools.lru_cache(1)
def _gaps(prompt: Prompt) -> np.ndarray:
    """Float32 [layers], between the two most probable options after each."""
    padded, letters = pad_prompt(prompt.embedded), jnp.asarray(prompt.letters)
    probability, _ = option_probabilities(prompt.decoder, padded, letters)
    second, first = np.sort(np.asarray(probability), axis=1)[:, -2:].T
    return first - second


def _cost(prompt: Prompt, whole: Compiled, left: int) -> PrefillCost:
    """All rows up to the exit, the keys and values of every layer, and one row's logits."""
    config, n = prompt.decoder.config, prompt.layout.length
    full, count = cost_of(prompt.layout, whole, prompt), LayerCost(config)
    if left == config.layers - 1:
        return full
    edges = (left + 1) * config.heads * (n * (n + 1) // 2)
    flops = (left + 1) * n * count.row + config.layers * n * count.source
    return PrefillCost(flops + edges * count.edge + count.logits, edges, 0, full.cache_bytes)


def _settings(subject: Subject) -> Sequence[Setting]:
    """After a quarter of the layers at the earliest."""
    return [Exit(gap, max(0, subject.layers // 4 - 1)) for gap in GAPS]


METHOD = Method("early exit", "Schuster et al. 2022, arXiv 2207.07061", _settings)
