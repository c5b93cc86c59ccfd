"""Edges cut by the prompt's layout alone: a pathway compiled as every other."""

import functools
from collections.abc import Iterable

import jax

from flowjax.edges import Knockout
from flowjax.efficiency.method import Applied, Masked, Prefilled, Prompt
from flowjax.inference.compile import Compiled, compile_pathway
from flowjax.inference.cost import PrefillCost, costs
from flowjax.inference.prefill import prefill
from flowjax.layout import TokenLayout
from flowjax.models.decoder import Decoder, DecoderConfig
from flowjax.models.embedded import Embedded
from flowjax.padding import pad_prompt, padded_mask

KEPT_COMPILED = 512
"""Layouts whose compiled pathways are kept."""


@jax.jit
def prefill_cut(decoder: Decoder, embedded: Embedded, compiled: Compiled) -> Prefilled:
    """`flowjax.inference.prefill.prefill` of a pathway."""
    logits, cache = prefill(decoder, embedded, compiled)
    return Prefilled(logits, cache, None)


def apply_knockouts(prompt: Prompt, knockouts: Iterable[Knockout]) -> Applied:
    """The prompt without some edges."""
    cut, config = tuple(knockouts), prompt.decoder.config
    compiled = compile_kept(prompt.layout, cut, config)

    def masked() -> Masked:
        return Masked(pad_prompt(prompt.embedded), padded_mask(prompt.layout, cut, config))

    return Applied(
        prefill_cut,
        (prompt.decoder, prompt.embedded, compiled),
        masked,
        lambda: cost_of(prompt.layout, compiled, prompt),
        lambda _: compiled,
    )


@functools.lru_cache(KEPT_COMPILED)
def compile_kept(
    layout: TokenLayout, knockouts: tuple[Knockout, ...], config: DecoderConfig
) -> Compiled:
    """`compile_pathway`, once for prompts that are laid out alike."""
    return compile_pathway(layout, knockouts, config)


def cost_of(layout: TokenLayout, compiled: Compiled, prompt: Prompt) -> PrefillCost:
    """What a compiled pathway costs."""
    config = prompt.decoder.config
    return costs(layout, compiled, config, value_bytes=prompt.value_bytes).compiled
