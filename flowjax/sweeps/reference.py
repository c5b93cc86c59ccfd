"""The plain sweep: one full forward per knockout, as the published reference does it.

Everything faster is tested against this.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.compilation import memory_of
from flowjax.edges import Knockout, edge_table
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeMask, Mask, causal_mask
from flowjax.models.decoder import Decoder, DecoderConfig
from flowjax.models.embedded import Embedded
from flowjax.patches import Patch, PatchArrays, site_shape
from flowjax.sweeps.answers import Answers


def last_logits(decoder: Decoder, prompt: Embedded, mask: Mask) -> Float[Array, " vocabulary"]:
    """Logits after the last position of one full forward: float32 [vocabulary].

    Attention is computed over the full square at once.
    """
    return decoder.last_logits(decoder(prompt, mask, chunk=len(prompt.x)).output, prompt)


@jax.jit
def _batch(
    decoder: Decoder,
    embedded: Embedded,
    group: Int[Array, " n"],
    allowed: Bool[Array, "batch layers heads g g"],
) -> Float[Array, "batch vocabulary"]:
    return jax.vmap(lambda table: last_logits(decoder, embedded, EdgeMask(group, table)))(allowed)


@jax.jit
def _patched(
    decoder: Decoder, embedded: Embedded, patch: PatchArrays
) -> Float[Array, "1 vocabulary"]:
    edit = patch.edit(jnp.arange(len(embedded.x)))
    output = decoder(embedded, edit=edit, chunk=len(embedded.x)).output
    return decoder.last_logits(output, embedded)[None]


def full_forwards(
    decoder: Decoder,
    embedded: Embedded,
    layout: TokenLayout,
    knockouts: Sequence[Knockout | Patch],
    *,
    batch: int = 8,
) -> Answers:
    """Logits at the last position under every knockout, `batch` full forwards at a time.

    Args:
        decoder: the model's decoder.
        embedded: the prompt.
        layout: its token groups.
        knockouts: one forward each, and patches, which are not batched.
        batch: forwards per call of the compiled function; the last call is padded to it.

    Raises:
        FlowjaxError: see `edge_table`.
    """
    config = decoder.config
    group = jnp.asarray(layout.cell)

    cuts = [(index, cut) for index, cut in enumerate(knockouts) if not isinstance(cut, Patch)]

    def windows() -> Iterator[tuple[Sequence[int], Float[Array, "k vocabulary"]]]:
        for start in range(0, len(cuts), batch):
            chosen = cuts[start : start + batch]
            same_size = [cut for _, cut in chosen + chosen[-1:] * (batch - len(chosen))]
            allowed = _tables(layout, same_size, config)
            logits = _batch(decoder, embedded, group, allowed)
            yield [index for index, _ in chosen], logits[: len(chosen)]
        for index, patch in enumerate(knockouts):
            if isinstance(patch, Patch):
                site = site_shape(config, patch.at)
                arrays = patch.arrays(layout, config.layers, site)
                yield [index], _patched(decoder, embedded, arrays)

    nothing_cut = causal_mask(config.layers, jnp.zeros_like(group)).allowed[None]
    base = _batch(decoder, embedded, jnp.zeros_like(group), nothing_cut)[0]
    return Answers(base, windows())


def temporary_bytes(
    decoder: Decoder,
    embedded: Embedded,
    layout: TokenLayout,
    knockouts: Sequence[Knockout],
    *,
    batch: int = 8,
) -> int:
    """Device bytes that one call of the compiled function takes beside its arguments."""
    allowed = _tables(layout, [knockouts[0]] * batch, decoder.config)
    compiled = _batch.lower(decoder, embedded, jnp.asarray(layout.cell), allowed).compile()
    return memory_of(compiled).temp_size_in_bytes


def _tables(
    layout: TokenLayout, knockouts: Sequence[Knockout], config: DecoderConfig
) -> Bool[Array, "batch layers heads g g"]:
    tables = [
        edge_table(layout, [knockout], layers=config.layers, heads=config.heads)
        for knockout in knockouts
    ]
    heads = max(table.shape[1] for table in tables)
    return jnp.asarray(
        [np.broadcast_to(table, (len(table), heads, *table.shape[2:])) for table in tables]
    )
