"""What is minimised: cross-entropy of the tokens that are learned."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from flowjax.masks import EdgeMask
from flowjax.models.decoder import Decoder, Keep
from flowjax.models.embedded import Embedded
from flowjax.train.packing import Packed


class TokenLoss(NamedTuple):
    """Of every position of one sequence: its weighted loss, and whether its target is likeliest.

    hidden: [layers, n, width], the input of every layer, if it was asked for.
    """

    loss: Float[Array, " n"]
    right: Bool[Array, " n"]
    hidden: Float[Array, "layers n width"] | None


def token_loss(
    decoder: Decoder,
    prompt: Embedded,
    packed: Packed,
    mask: EdgeMask,
    *,
    chunk: int,
    hidden: bool = False,
    remat: bool = True,
    rows: int | None = None,
) -> TokenLoss:
    """The losses of one packed sequence.

    Args:
        decoder: the model's decoder.
        prompt: the sequence as the decoder reads it; see `packed_prompt`.
        packed: one sequence.
        mask: of the sequence; see `flowjax.train.packing.packed_mask`.
        chunk: rows of attention computed at a time.
        hidden: return the input of every layer.
        remat: compute layers anew in the backward pass.
        rows: of logits that there are at a time, computed anew in the backward pass; None for all,
            which with large vocabularies take more room than a layer.
    """
    trace = decoder(prompt, mask, keep=Keep(hidden=hidden), chunk=chunk, remat=remat)
    target = jnp.asarray(packed.target)

    def read(part: tuple[Array, Array]) -> tuple[Array, Array]:
        logits = decoder.logits(part[0])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, part[1])
        return losses, jnp.argmax(logits, axis=-1) == part[1]

    if rows is None:
        losses, right = read((trace.output, target))
    else:
        more = -len(target) % rows
        x, wanted = jnp.pad(trace.output, ((0, more), (0, 0))), jnp.pad(target, (0, more))
        parts = (x.reshape(-1, rows, x.shape[-1]), wanted.reshape(-1, rows))
        found = jax.lax.map(jax.checkpoint(read), parts)
        losses, right = (part.reshape(-1)[: len(target)] for part in found)
    return TokenLoss(losses * packed.weight, right, trace.hidden)


def packed_prompt(
    x: Float[Array, "n width"],
    packed: Packed,
    deepstack: Float[Array, "k n width"] | None = None,
) -> Embedded:
    """A packed sequence as the decoder reads it.

    Its length is that of the longest question alone, on which some rotary embeddings depend.

    Args:
        x: embeddings, the video's in their places.
        packed: one sequence.
        deepstack: see `Embedded`.
    """
    position = jnp.asarray(packed.position)
    return Embedded(x, position, deepstack, jnp.max(position) + 1)
