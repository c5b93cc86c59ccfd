"""The plain sweep: one full forward per knockout, as the published reference does it.

Everything faster is tested against this.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.compilation import memory_of
from flowjax.edges import EdgeMask, Knockout, Mask, causal_mask, edge_table
from flowjax.layout import TokenLayout
from flowjax.models.decoder import Decoder, DecoderConfig
from flowjax.sweeps.answers import Answers, Embedded


def last_logits(
    decoder: Decoder, embedded: Embedded, mask: Mask, last: Int[Array, ""]
) -> Float[Array, " vocabulary"]:
    """Logits after position `last` of one full forward; later rows are padding.

    Args:
        decoder: the model's decoder.
        embedded: the prompt.
        mask: edges per layer.
        last: the prompt's final position.

    Returns:
        float32 [vocabulary].
    """
    trace = decoder(
        embedded.x,
        mask,
        rope_position=embedded.rope_position,
        deepstack=embedded.deepstack,
        length=last + 1,
    )
    return decoder.logits(trace.output[last][None])[0]


@jax.jit
def _batch(
    decoder: Decoder,
    embedded: Embedded,
    group: Int[Array, " n"],
    allowed: Bool[Array, "batch layers heads g g"],
    last: Int[Array, ""],
) -> Float[Array, "batch vocabulary"]:
    return jax.vmap(lambda table: last_logits(decoder, embedded, EdgeMask(group, table), last))(
        allowed
    )


def full_forwards(
    decoder: Decoder,
    embedded: Embedded,
    layout: TokenLayout,
    knockouts: Sequence[Knockout],
    *,
    batch: int = 8,
) -> Answers:
    """Logits at the last position under every knockout, `batch` full forwards at a time.

    Args:
        decoder: the model's decoder.
        embedded: the prompt.
        layout: its token groups.
        knockouts: one forward each.
        batch: forwards per call of the compiled function; the last call is padded to it.

    Raises:
        FlowjaxError: see `edge_table`.
    """
    config = decoder.config
    last = jnp.asarray(layout.length - 1)
    group = jnp.asarray(layout.cell)

    def windows() -> Iterator[tuple[range, Float[Array, "k vocabulary"]]]:
        for start in range(0, len(knockouts), batch):
            indices = range(start, min(start + batch, len(knockouts)))
            chosen = [knockouts[min(start + i, len(knockouts) - 1)] for i in range(batch)]
            allowed = _tables(layout, chosen, config)
            yield indices, _batch(decoder, embedded, group, allowed, last)[: len(indices)]

    nothing_cut = causal_mask(config.layers, jnp.zeros_like(group)).allowed[None]
    base = _batch(decoder, embedded, jnp.zeros_like(group), nothing_cut, last)[0]
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
    group, last = jnp.asarray(layout.cell), jnp.asarray(layout.length - 1)
    compiled = _batch.lower(decoder, embedded, group, allowed, last).compile()
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
