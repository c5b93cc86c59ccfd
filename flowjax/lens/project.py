"""Hidden states to probabilities over the vocabulary.

The logit lens (nostalgebraist 2020) reads the video positions, the generation probability the last
position. Both follow the published reference of the paper, quirks included, so that numbers can be
compared: see the two functions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flowjax.models.attention import PRECISION
from flowjax.models.decoder import Decoder, Trace


class TopTokens(NamedTuple):
    """ids int32 and probability float32, both [..., k], most probable first."""

    ids: Int[Array, "*rows k"]
    probability: Float[Array, "*rows k"]


def lens_states(decoder: Decoder, trace: Trace) -> Float[Array, "layers n width"]:
    """What the reference's logit lens reads at each layer.

    The input of layer l for every layer but the last, where it is the output of the final norm.
    """
    assert trace.hidden is not None, "the forward must keep hidden states"
    return trace.hidden.at[-1].set(decoder.norm(trace.output))


def logit_lens(decoder: Decoder, states: Float[Array, "rows width"], k: int = 10) -> TopTokens:
    """The k most probable tokens of each row through the *input* embedding, without norm."""
    logits = jnp.dot(states, decoder.embedding.embedding[...].T, precision=PRECISION)
    probability, ids = jax.lax.top_k(jax.nn.softmax(logits.astype(jnp.float32)), k)
    return TopTokens(ids, probability)


def generation_probability(
    decoder: Decoder, trace: Trace, last: int | Int[Array, ""], *, normed: bool
) -> Float[Array, "layers vocabulary"]:
    """Probabilities of the next token read after every layer at position `last`.

    Through the output projection: float32 [layers, vocabulary]. The last layer is always normed;
    `normed` says whether the others are.
    """
    assert trace.hidden is not None, "the forward must keep hidden states"
    after = jnp.concatenate([trace.hidden[1:, last], trace.output[last][None]])
    final = decoder.norm(after)
    rows = final if normed else after.at[-1].set(final[-1])
    return jax.nn.softmax(decoder.project(rows))
