"""Early exit: answering from an early layer, where a margin says that later ones will agree.

After every layer the last position is read through the final norm and the output head, restricted
to the letters of the question's options. The margin is the difference of the two largest of these
probabilities. A rule exits after the first layer whose margin reaches that layer's threshold.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.errors import FlowjaxError
from flowjax.models.decoder import Decoder, Keep
from flowjax.models.embedded import Embedded


@jax.jit
def option_probabilities(
    decoder: Decoder, prompt: Embedded, letters: Int[Array, " options"]
) -> tuple[Float[Array, "layers options"], Int[Array, ""]]:
    """Probabilities of the options' letters, and no other token, after every layer.

    Args:
        decoder: the model's decoder.
        prompt: with its padding.
        letters: token ids.

    Returns:
        float32 [layers, options], and the most probable next token of all.
    """
    trace = decoder(prompt, keep=Keep(hidden=True))
    assert trace.hidden is not None
    after = jnp.concatenate([trace.hidden[1:, prompt.last], trace.output[prompt.last][None]])
    logits = decoder.logits(after)
    return jax.nn.softmax(logits[:, letters]), jnp.argmax(logits[-1])


def settled(answer: Int[np.ndarray, "samples layers"]) -> Int[np.ndarray, " samples"]:
    """The first layer (from 0) from which on every layer's answer is the last one's."""
    differs = answer != answer[:, -1:]
    last = answer.shape[1] - np.argmax(differs[:, ::-1], axis=1)
    return np.where(differs.any(axis=1), last, 0)


def calibrate(
    margin: Float[np.ndarray, "samples layers"],
    agrees: Bool[np.ndarray, "samples layers"],
    tolerance: float,
) -> Float[np.ndarray, " layers"]:
    """Thresholds of a rule, from samples whose final answers are known.

    A layer's threshold is the smallest margin such that, of the samples with at least that margin
    there, at most the share `tolerance` has another answer at the end. One such sample more than
    were seen is counted, (k + 1) / (n + 1), so that a layer where few samples reach the margin
    stays closed. The last layer is always open.

    Args:
        margin: after every layer, 0 to 1.
        agrees: whether the answer after a layer is the final one.
        tolerance: 0 to 1.

    Returns:
        float64 [layers]; infinite for a layer at which no sample exits.

    Raises:
        FlowjaxError: no samples, or a tolerance that is not 0 to 1.
    """
    samples, layers = margin.shape
    if not samples:
        raise FlowjaxError("no samples to calibrate an exit rule on")
    if not 0 <= tolerance <= 1:
        raise FlowjaxError(f"tolerance {tolerance}: it must be between 0 and 1")
    thresholds = np.full(layers, np.inf)
    for layer in range(layers - 1):
        order = np.argsort(-margin[:, layer], kind="stable")
        ranked = margin[order, layer]
        wrong = np.cumsum(~agrees[order, layer])
        allowed = (wrong + 1) / (np.arange(samples) + 2) <= tolerance
        # Samples of equal margin are on the same side of any threshold.
        allowed &= np.append(ranked[1:] != ranked[:-1], True)
        if allowed.any():
            thresholds[layer] = ranked[np.flatnonzero(allowed)[-1]]
    thresholds[-1] = 0.0
    return thresholds


def exits(
    margin: Float[np.ndarray, "samples layers"], thresholds: Float[np.ndarray, " layers"]
) -> Int[np.ndarray, " samples"]:
    """The layer (from 0) after which a rule answers each sample."""
    return np.argmax(margin >= thresholds, axis=1)
