"""Lengths that share compiled code: prompts, tables and rows are padded to few sizes."""

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

from flowjax.edges import Knockout, edge_table
from flowjax.layout import TokenLayout
from flowjax.masks import DenseMask, EdgeMask
from flowjax.models.decoder import DecoderConfig
from flowjax.models.embedded import Embedded

LENGTH_STEP = 64
"""Prompts are padded to a multiple of this, so that different lengths share compiled code."""

GROUP_STEP = 16
"""Group tables are padded to a multiple of this, so that layouts share compiled code."""


def round_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `value`."""
    return -(-value // step) * step


def bucket_rows(rows: int) -> int:
    """Round up so that nearby counts share compiled code, by at most an eighth from 16 on.

    Powers of two up to 16; then eight steps to each doubling, up to steps of 32.
    """
    if rows <= 16:
        return 1 << (rows - 1).bit_length()
    return round_up(rows, min(32, 1 << ((rows - 1).bit_length() - 4)))


def pad_prompt(prompt: Embedded) -> Embedded:
    """A prompt padded on the right, where causality hides it, to a multiple of `LENGTH_STEP`."""
    return prompt.padded(round_up(len(prompt.x), LENGTH_STEP))


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
