"""What is minimised: cross-entropy of the tokens that are learned."""

from typing import NamedTuple

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
    x: Float[Array, "n width"],
    packed: Packed,
    mask: EdgeMask,
    *,
    chunk: int,
    hidden: bool = False,
    remat: bool = True,
) -> TokenLoss:
    """The losses of one packed sequence.

    Args:
        decoder: the model's decoder.
        x: the sequence's embeddings, the video's in their places.
        packed: one sequence.
        mask: of the sequence; see `flowjax.train.packing.packed_mask`.
        chunk: rows of attention computed at a time.
        hidden: return the input of every layer.
        remat: compute layers anew in the backward pass.
    """
    trace = decoder(
        Embedded(x, jnp.asarray(packed.position)[None]),
        mask,
        keep=Keep(hidden=hidden),
        chunk=chunk,
        remat=remat,
    )
    logits = decoder.logits(trace.output)
    target = jnp.asarray(packed.target)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    right = jnp.argmax(logits, axis=-1) == target
    return TokenLoss(losses * packed.weight, right, trace.hidden)
