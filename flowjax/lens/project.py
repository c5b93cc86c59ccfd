"""Hidden states to probabilities over the vocabulary.

The logit lens (nostalgebraist 2020) reads the video positions, the generation probability the last
position. Both follow the published reference of the paper, quirks included, so that numbers can be
compared: see the functions.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from tokenizers import Tokenizer

from flowjax.errors import FlowjaxError
from flowjax.models.decoder import Decoder, Trace
from flowjax.precision import PRECISION

Through = Literal["input", "output"]
"""Which matrix turns hidden states into logits: token embedding, or final norm and output head."""

ROWS = 128
"""Rows whose logits are held at a time."""


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


def logit_lens(
    decoder: Decoder,
    states: Float[Array, "rows width"],
    k: int = 10,
    *,
    through: Through = "input",
    chunk: int = ROWS,
) -> TopTokens:
    """The k most probable tokens of each row.

    Args:
        decoder: the model's decoder.
        states: for "input" as the reference reads them (see `lens_states`), without norm; for
            "output" normed.
        k: tokens per row.
        through: the *input* embedding, the reference's choice, or the output head.
        chunk: rows whose logits over the vocabulary are held at a time.
    """

    def top(state: Float[Array, " width"]) -> TopTokens:
        if through == "output":
            logits = decoder.project(state[None])[0]
        else:
            logits = jnp.dot(state, decoder.embedding.embedding[...].T, precision=PRECISION)
        probability, ids = jax.lax.top_k(jax.nn.softmax(logits.astype(jnp.float32)), k)
        return TopTokens(ids, probability)

    return jax.lax.map(top, states, batch_size=chunk)


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


def option_ids(
    tokenizer: Tokenizer, letters: Sequence[str], base_id: int
) -> Int[np.ndarray, " options"]:
    """The token that stands for each option's letter in the generation probability.

    The reference's rule: the first token of the letter as a text of its own, which for
    SentencePiece tokenizers is the one with a space before it; but the bare letter's token where
    its id is closer to the id of the model's answer. Where the tokenizer splits a letter, the first
    token would be the same space for all of them, so the bare letter's is taken.

    Raises:
        FlowjaxError: the tokenizer has no token for a letter.
    """
    ids = []
    for letter in letters:
        written = tokenizer.encode(letter, add_special_tokens=False).ids
        bare = tokenizer.token_to_id(letter)
        if bare is None or not written:
            raise FlowjaxError(f"the tokenizer has no token for the letter {letter!r}")
        alone = written[0] if len(written) == 1 else bare
        ids.append(bare if abs(bare - base_id) < abs(alone - base_id) else alone)
    return np.array(ids, np.int32)
