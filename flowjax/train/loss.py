"""What is minimised: cross-entropy of the tokens that are learned."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.train.packing import Packed, packed_mask


class TokenLoss(NamedTuple):
    """Of every position of one sequence: its weighted loss, and whether its target is likeliest."""

    loss: Float[Array, " n"]
    right: Bool[Array, " n"]


def token_loss(
    decoder: Decoder,
    x: Float[Array, "n width"],
    packed: Packed,
    *,
    segments: int,
    chunk: int,
) -> TokenLoss:
    """The losses of one packed sequence; layers are computed anew in the backward pass.

    Args:
        decoder: the model's decoder.
        x: the sequence's embeddings, the video's in their places.
        packed: one sequence.
        segments: the most that a sequence has.
        chunk: rows of attention computed at a time.
    """
    trace = decoder(
        Embedded(x, jnp.asarray(packed.position)[None]),
        packed_mask(jnp.asarray(packed.segment), segments, decoder.config.layers),
        chunk=chunk,
        remat=True,
    )
    logits = decoder.logits(trace.output)
    target = jnp.asarray(packed.target)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    return TokenLoss(losses * packed.weight, jnp.argmax(logits, axis=-1) == target)
