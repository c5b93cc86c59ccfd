"""The plain sweep: one full forward per knockout, as the published reference does it.

Everything faster is tested against this.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flowjax.edges import EdgeMask, Knockout, Mask, causal_mask, edge_mask
from flowjax.layout import TokenLayout
from flowjax.models.video_llm import VideoLLM
from flowjax.sweep.answers import Answers, Embedded


def last_logits(
    model: VideoLLM, embedded: Embedded, mask: Mask, last: Int[Array, ""]
) -> Float[Array, " vocabulary"]:
    """Logits after position `last` of one full forward; later rows are padding.

    Args:
        model: the model.
        embedded: the prompt.
        mask: edges per layer.
        last: the prompt's final position.

    Returns:
        float32 [vocabulary].
    """
    trace = model.decoder(
        embedded.x,
        mask,
        rope_position=embedded.rope_position,
        deepstack=embedded.deepstack,
        length=last + 1,
    )
    return model.decoder.logits(trace.output[last][None])[0]


@jax.jit
def _batch(
    model: VideoLLM,
    embedded: Embedded,
    group: Int[Array, " n"],
    allowed: Bool[Array, "batch layers heads g g"],
    last: Int[Array, ""],
) -> Float[Array, "batch vocabulary"]:
    return jax.vmap(lambda table: last_logits(model, embedded, EdgeMask(group, table), last))(
        allowed
    )


def full_forwards(
    model: VideoLLM,
    embedded: Embedded,
    layout: TokenLayout,
    knockouts: Sequence[Knockout],
    *,
    batch: int = 8,
) -> Answers:
    """Logits at the last position under every knockout, `batch` full forwards at a time.

    Args:
        model: the model.
        embedded: the prompt.
        layout: its token groups.
        knockouts: one forward each.
        batch: forwards per call of the compiled function; the last call is padded to it.

    Raises:
        FlowjaxError: see `edge_mask`.
    """
    config = model.config.decoder
    last = jnp.asarray(layout.length - 1)
    group = jnp.asarray(layout.cell)
    tables = [
        edge_mask(layout, [knockout], layers=config.layers, heads=config.heads).allowed
        for knockout in knockouts
    ]

    def windows() -> Iterator[tuple[range, Float[Array, "k vocabulary"]]]:
        for start in range(0, len(tables), batch):
            indices = range(start, min(start + batch, len(tables)))
            chosen = [tables[min(start + offset, len(tables) - 1)] for offset in range(batch)]
            heads = max(table.shape[1] for table in chosen)
            allowed = jnp.stack(
                [jnp.broadcast_to(table, (len(table), heads, *table.shape[2:])) for table in chosen]
            )
            yield indices, _batch(model, embedded, group, allowed, last)[: len(indices)]

    nothing_cut = causal_mask(config.layers, jnp.zeros_like(group)).allowed[None]
    base = _batch(model, embedded, jnp.zeros_like(group), nothing_cut, last)[0]
    return Answers(base, windows())
