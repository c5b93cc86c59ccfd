"""One forward of a prompt with chosen intermediates, at lengths that share compiled code."""

from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from flowjax.edges import DenseMask, EdgeMask, Knockout, Mask, causal_mask, edge_table
from flowjax.layout import TokenLayout
from flowjax.models.decoder import NOTHING, Decoder, DecoderConfig, Keep, Trace
from flowjax.sweeps.answers import Embedded
from flowjax.sweeps.cost import CHUNK
from flowjax.sweeps.engine import GROUP_STEP
from flowjax.sweeps.plan import LENGTH_STEP, round_up


class PaddedPrompt(NamedTuple):
    """A prompt padded on the right, where causality hides the padding.

    length: int32 [], of the prompt itself.
    """

    embedded: Embedded
    length: Int[Array, ""]

    @property
    def last(self) -> Int[Array, ""]:
        """The prompt's last position."""
        return self.length - 1


def pad_prompt(embedded: Embedded) -> PaddedPrompt:
    """A prompt padded to a multiple of `LENGTH_STEP` positions."""
    length = len(embedded.x)
    padded = embedded.padded(round_up(length, LENGTH_STEP))
    return PaddedPrompt(padded, jnp.asarray(length, jnp.int32))


def padded_mask(
    layout: TokenLayout, knockouts: Iterable[Knockout], config: DecoderConfig
) -> EdgeMask:
    """The mask of `flowjax.edges.edge_mask` for a prompt that `pad_prompt` gave.

    Positions and cells are padded, with nothing cut.

    Raises:
        FlowjaxError: see `edge_mask`.
    """
    table = edge_table(layout, knockouts, layers=config.layers, heads=config.heads)
    more = round_up(len(layout.cells), GROUP_STEP) - len(layout.cells)
    table = np.pad(table, ((0, 0), (0, 0), (0, more), (0, more)), constant_values=True)
    end = round_up(layout.length, LENGTH_STEP) - layout.length
    return EdgeMask(jnp.asarray(np.pad(layout.cell, (0, end)), jnp.int32), jnp.asarray(table))


def padded_dense(allowed: DenseMask) -> DenseMask:
    """A mask between positions, for a prompt that `pad_prompt` gave; padding reads nothing."""
    length = allowed.allowed.shape[-1]
    more = (0, round_up(length, LENGTH_STEP) - length)
    return DenseMask(jnp.pad(allowed.allowed, ((0, 0), (0, 0), more, more)))


def forward(
    decoder: Decoder, prompt: PaddedPrompt, mask: Mask | None = None, keep: Keep = NOTHING
) -> Trace:
    """Run the decoder over a prompt.

    Args:
        decoder: the model's decoder.
        prompt: with its padding.
        mask: of the padded prompt; None cuts nothing.
        keep: intermediates to return.
    """
    embedded = prompt.embedded
    if mask is None:
        group = jnp.zeros(len(embedded.x), jnp.int32)
        mask = causal_mask(decoder.config.layers, group)
    return decoder(
        embedded.x,
        mask,
        rope_position=embedded.rope_position,
        deepstack=embedded.deepstack,
        length=prompt.length,
        keep=keep,
        chunk=CHUNK,
    )
