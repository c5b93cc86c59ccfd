"""What the lenses read from one forward, as compiled functions."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flowjax.lens.project import (
    Through,
    TopTokens,
    generation_probability,
    lens_states,
    logit_lens,
)
from flowjax.masks import Mask
from flowjax.models.decoder import Decoder, Keep
from flowjax.models.embedded import Embedded
from flowjax.precision import PRECISION


class LensReading(NamedTuple):
    """top: of every layer and position, [layers, positions, k]; logits: at the last position."""

    top: TopTokens
    logits: Float[Array, " vocabulary"]


class AttentionReading(NamedTuple):
    """attention: float32 [layers, heads, n], of the target; logits: at the last position."""

    attention: Float[Array, "layers heads n"]
    logits: Float[Array, " vocabulary"]


def read_logits(decoder: Decoder, prompt: Embedded, mask: Mask) -> Float[Array, " vocabulary"]:
    """Logits at the last position: float32 [vocabulary]; `mask` is of the padded prompt."""
    return _logits(decoder, prompt, decoder.blocked(mask))


@jax.jit
def _logits(decoder: Decoder, prompt: Embedded, mask: Mask) -> Float[Array, " vocabulary"]:
    return decoder.last_logits(decoder(prompt, mask).output, prompt)


def read_after(
    decoder: Decoder, prompt: Embedded, mask: Mask, layer: Int[Array, ""]
) -> Float[Array, " vocabulary"]:
    """`read_logits`, but after a layer, counted from 0, through the final norm."""
    return _logits_after(decoder, prompt, decoder.blocked(mask), layer)


@jax.jit
def _logits_after(
    decoder: Decoder, prompt: Embedded, mask: Mask, layer: Int[Array, ""]
) -> Float[Array, " vocabulary"]:
    trace = decoder(prompt, mask, keep=Keep(hidden=True))
    assert trace.hidden is not None
    after = jnp.concatenate([trace.hidden[1:], trace.output[None]])
    return decoder.last_logits(after[layer], prompt)


@jax.jit
def read_generation(decoder: Decoder, prompt: Embedded) -> Float[Array, "norm layers vocabulary"]:
    """Generation probability after every layer: without the final norm, then with it.

    The last layer is normed in both, and is the model's own next-token distribution.
    """
    trace = decoder(prompt, keep=Keep(hidden=True))
    forms = [
        generation_probability(decoder, trace, prompt.last, normed=normed)
        for normed in (False, True)
    ]
    return decoder.whole(jnp.stack(forms))


@functools.partial(jax.jit, static_argnames=("k", "through"))
def read_lens(
    decoder: Decoder,
    prompt: Embedded,
    positions: Int[Array, " p"],
    *,
    k: int,
    through: Through,
) -> LensReading:
    """The logit lens at chosen positions of every layer.

    Layer l is the input of decoder layer l, but the output of the last for the last (see
    `lens_states`). Through the output head, all of them are normed.
    """
    trace = decoder(prompt, keep=Keep(hidden=True))
    assert trace.hidden is not None
    logits = decoder.last_logits(trace.output, prompt)
    chosen = trace._replace(hidden=trace.hidden[:, positions], output=trace.output[positions])
    if through == "output":
        assert chosen.hidden is not None
        states = decoder.norm(chosen.hidden.at[-1].set(chosen.output))
    else:
        states = lens_states(decoder, chosen)
    layers, count, width = states.shape
    top = logit_lens(decoder, states.reshape(-1, width), k, through=through)
    read = (decoder.whole(part.reshape(layers, count, k)) for part in top)
    return LensReading(TopTokens(*read), logits)


def read_attention(
    decoder: Decoder,
    prompt: Embedded,
    mask: Mask,
    targets: Int[Array, " r"],
    share: Float[Array, " r"],
) -> AttentionReading:
    """Attention weights of some target positions, averaged over them.

    Only the weights of these rows are kept.

    Args:
        decoder: the model's decoder.
        prompt: with its padding.
        mask: of the padded prompt.
        targets: positions.
        share: of each in the average.
    """
    return _attention(decoder, prompt, decoder.blocked(mask), targets, share)


@jax.jit
def _attention(
    decoder: Decoder,
    prompt: Embedded,
    mask: Mask,
    targets: Int[Array, " r"],
    share: Float[Array, " r"],
) -> AttentionReading:
    trace = decoder(prompt, mask, keep=Keep(attention=targets))
    assert trace.attention is not None
    attention = jnp.einsum("lhrn,r->lhn", trace.attention, share, precision=PRECISION)
    return AttentionReading(decoder.whole(attention), decoder.last_logits(trace.output, prompt))
