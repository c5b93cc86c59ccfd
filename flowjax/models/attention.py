"""Attention of some target rows over some source rows under an explicit mask.

One function serves full forwards, suffixes that read a cached prefix, and gathered live rows: the
caller says which absolute positions its rows have. Sources come in blocks so that a prefix shared
by many windows is read where it lies instead of being copied into each of them. This is plain XLA;
`flowjax.models.flash` takes a kernel where there is one.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flowjax.masks import EdgeGates, Mask
from flowjax.precision import PRECISION

CHUNK = 256
"""Rows of attention computed at a time (`attend_causal`)."""

BANDS = 8
"""Most parts of consecutive rows, each of which reads only the rows up to its end."""


class Sources(NamedTuple):
    """A block of source rows.

    key, value: [k, kv_heads, d]; position: int32 [k], absolute.
    """

    key: Float[Array, "k kv_heads d"]
    value: Float[Array, "k kv_heads d"]
    position: Int[Array, " k"]


class Attended(NamedTuple):
    """output: [q, heads, d]; weights: float32 [heads, q, k], over all blocks in order."""

    output: Float[Array, "q heads d"]
    weights: Float[Array, "heads q k"]


def attend(
    query: Float[Array, "q heads d"],
    position: Int[Array, " q"],
    blocks: Sequence[Sources],
    mask: Mask | None,
    bias: Float[Array, "#q k"] | None = None,
    window: int | None = None,
) -> Attended:
    """Softmax attention, scaled by `1 / sqrt(d)`; softmax in float32.

    A row without any allowed source gives zeros. Query head h reads key head
    `h // (heads // kv_heads)`.

    Args:
        query: the target rows.
        position: their absolute positions.
        blocks: the source rows; a position must not occur twice.
        mask: one layer's mask; None lets every row read every source (a vision tower).
        bias: added to the scaled scores of every head.
        window: what a row may read at most: itself and the `window - 1` positions before it, of
            those that the mask allows; None for all of those.
    """
    rows, heads, width = query.shape
    kv_heads = blocks[0].key.shape[1]
    grouped = query.reshape(rows, kv_heads, heads // kv_heads, width)
    scores = jnp.concatenate(
        [
            jnp.einsum(
                "qgrd,kgd->grqk",
                grouped,
                block.key,
                precision=PRECISION,
                preferred_element_type=jnp.float32,
            )
            for block in blocks
        ],
        axis=-1,
    ) / jnp.sqrt(jnp.float32(width))
    if bias is not None:
        scores = scores + bias
    if mask is None:
        weights = jax.nn.softmax(scores, axis=-1)
    else:
        source = jnp.concatenate([block.position for block in blocks])
        allowed = mask.rows(position, source)
        if window is not None:
            near = position[:, None] - source[None, :] < window
            allowed = jnp.where(near, allowed, jnp.zeros_like(allowed))
        allowed = allowed.reshape(-1, *scores.shape[1:]) if len(allowed) > 1 else allowed[None]
        weights = masked_softmax(scores, allowed)
        if isinstance(mask, EdgeGates):
            by_head = mask.gated(weights.reshape(heads, rows, -1), position, source)
            weights = by_head.reshape(weights.shape)
    parts, start = [], 0
    for block in blocks:
        stop = start + len(block.position)
        parts.append(
            jnp.einsum(
                "grqk,kgd->qgrd",
                weights[..., start:stop].astype(query.dtype),
                block.value,
                precision=PRECISION,
                preferred_element_type=jnp.float32,
            )
        )
        start = stop
    output = sum(parts[1:], parts[0]).astype(query.dtype).reshape(query.shape)
    return Attended(output, weights.reshape(heads, rows, start))


def attend_causal(
    query: Float[Array, "q heads d"],
    own: Sources,
    cached: Sequence[Sources],
    mask: Mask,
    chunk: int = CHUNK,
    window: int | None = None,
) -> Float[Array, "q heads d"]:
    """Attention of consecutive rows over cached blocks and themselves, `chunk` rows at a time.

    The rows are divided into at most `BANDS` bands. A band reads only the own rows up to its end,
    so that most of the half of the square that causality forbids is never computed; its chunks are
    computed one after the other by one loop, so that long prompts take no longer to compile. The
    result is that of `attend`.

    Args:
        query: rows with ascending positions `own.position`.
        own: keys and values of the same rows.
        cached: blocks of earlier rows.
        mask: one layer's mask.
        chunk: rows per chunk.
        window: see `attend`.
    """
    band = band_rows(len(query), chunk)
    outputs = []
    for start in range(0, len(query), band):
        rows = slice(start, min(start + band, len(query)))
        visible = Sources(*(part[: rows.stop] for part in own))
        blocks = [*cached, visible]
        # Of gates a gradient is wanted.
        remat = isinstance(mask, EdgeGates)
        read = functools.partial(attend_chunks, window=window, remat=remat)
        targets = query[rows]
        if outputs:  # a band begins when the one before has ended, so that one's scores exist
            targets, outputs[-1] = jax.lax.optimization_barrier((targets, outputs[-1]))
        outputs.append(read(targets, own.position[rows], blocks, mask, chunk))
    return jnp.concatenate(outputs)


def band_rows(rows: int, chunk: int = CHUNK) -> int:
    """Rows of a band of `attend_causal`: whole chunks."""
    return -(-rows // (BANDS * chunk)) * chunk


def attend_chunks(
    query: Float[Array, "q heads d"],
    position: Int[Array, " q"],
    blocks: Sequence[Sources],
    mask: Mask,
    chunk: int = CHUNK,
    *,
    window: int | None = None,
    remat: bool = False,
) -> Float[Array, "q heads d"]:
    """What `attend` gives, `chunk` rows at a time, so that no array over rows x rows is made.

    remat: compute again what a gradient needs of a chunk, instead of keeping it.
    """

    def one(part: tuple[Array, Array]) -> Array:
        return attend(*part, blocks, mask, window=window).output

    read = jax.checkpoint(one) if remat else one
    whole = len(query) // chunk * chunk if len(query) > chunk else 0
    outputs = []
    if whole == chunk:
        outputs.append(read((query[:whole], position[:whole])))
    elif whole:
        chunks = query[:whole].reshape(-1, chunk, *query.shape[1:])
        done = jax.lax.map(read, (chunks, position[:whole].reshape(-1, chunk)))
        outputs.append(done.reshape(whole, *query.shape[1:]))
    if whole < len(query):
        outputs.append(read((query[whole:], position[whole:])))
    return jnp.concatenate(outputs)


def masked_softmax(
    scores: Float[Array, "*batch q k"], allowed: Array
) -> Float[Array, "*batch q k"]:
    """Softmax over the allowed entries; a row with none is all zeros.

    allowed: bool, broadcastable to `scores`.
    """
    masked = jnp.where(allowed, scores, -jnp.inf)
    top = jnp.max(masked, axis=-1, keepdims=True)
    weights = jnp.exp(masked - jnp.where(jnp.isfinite(top), top, 0.0))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total == 0, 1.0, total)
