"""When to answer from an early layer: a rule over what the last position reads as after it.

The last position is read after a layer through the final norm and the output head, as the last
layer's output is. A layer that no threshold opens is not read, so rules for few layers cost little:
reading the whole vocabulary takes as many FLOPs as a good part of a layer does for one row.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.errors import FlowjaxError
from flowjax.models.decoder import Decoder
from flowjax.precision import PRECISION

Measure = Literal["entropy", "gap", "option-gap"]
ENTROPY, GAP, OPTION_GAP = "entropy", "gap", "option-gap"
RELATIONS: dict[Measure, str] = {ENTROPY: "<", GAP: ">", OPTION_GAP: ">"}
WRITTEN = re.compile(
    r"(?P<measure>[a-z-]+)(?P<relation>[<>])(?P<value>[0-9.]+)(@layer>=(?P<layer>[0-9]+))?"
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ExitRule:
    """Answers after the first layer whose confidence reaches that layer's threshold.

    measure: of confidence. "entropy": that of the next token in nats, with a minus; "gap": the
        difference of the two largest probabilities, as in CALM's softmax response (Schuster et al.
        2022, arXiv 2207.07061); "option-gap": the same among the options' letters alone.
    thresholds: float32 [layers]; infinite where no sample exits. After the last one all are read.
    letters: int32 [options], token ids, for "option-gap".
    """

    measure: Measure = field(metadata={"static": True})
    thresholds: Float[Array, " layers"]
    letters: Int[Array, " options"] | None = None

    def among(self, letters: Int[np.ndarray, " options"]) -> "ExitRule":
        """The rule for a question with options; no letters for an open one.

        Raises:
            FlowjaxError: the rule needs options.
        """
        if self.measure != OPTION_GAP:
            return self
        if not len(letters):
            raise FlowjaxError(
                "exit rule: option-gap needs a question with options; for an open one give gap or "
                "entropy"
            )
        return ExitRule(self.measure, self.thresholds, jnp.asarray(letters, jnp.int32))

    @property
    def written(self) -> dict[str, list[float] | str]:
        """For manifests: the measure, and the thresholds of the layers, -1 where none exits."""
        thresholds = [float(at) if np.isfinite(at) else -1.0 for at in np.asarray(self.thresholds)]
        return {"measure": self.measure, "of layers": thresholds}

    @property
    def of_text(self) -> "ExitRule":
        """The rule for tokens after the first, which are no letters: the gap among all tokens."""
        if self.measure != OPTION_GAP:
            return self
        return ExitRule(GAP, self.thresholds)

    def holds(
        self, decoder: Decoder, x: Float[Array, "1 width"], layer: Int[Array, ""]
    ) -> Bool[Array, ""]:
        """Whether what the last position is after a layer is enough to answer; traced."""
        threshold = self.thresholds[layer]
        return jax.lax.cond(
            threshold < jnp.inf,
            lambda: confidence(decoder, x, self.measure, self.letters) >= threshold,
            lambda: jnp.zeros((), bool),
        )


def confidence(
    decoder: Decoder,
    x: Float[Array, "1 width"],
    measure: Measure,
    letters: Int[Array, " options"] | None,
) -> Float[Array, ""]:
    """How sure of its answer the last position is after a layer, in a rule's measure."""
    if measure == OPTION_GAP:
        assert letters is not None, "the rule was not told the options"
        logits = _logits_of(decoder, decoder.norm(x), letters)[0]
    else:
        logits = decoder.logits(x)[0]
    if measure == ENTROPY:
        log = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(log) * log)
    first, second = jax.lax.top_k(jax.nn.softmax(logits), 2)[0]
    return first - second


def _logits_of(
    decoder: Decoder, normed: Float[Array, "n width"], tokens: Int[Array, " k"]
) -> Float[Array, "n k"]:
    """`Decoder.project` of a few tokens."""
    if decoder.unembedding is None:
        weights = decoder.embedding.embedding[...][tokens].T
    else:
        weights = decoder.unembedding.kernel[...][:, tokens]
    return jnp.dot(normed, weights, precision=PRECISION).astype(jnp.float32)


def read_rule(text: str, layers: int) -> ExitRule:
    """A rule as it is written: `entropy<0.3`, `gap>0.9@layer>=8`, `option-gap>0.5`.

    Args:
        text: measure, relation and value; then, if not all layers, the first after which to exit,
            counted from 0.
        layers: of the decoder.

    Raises:
        FlowjaxError: says what of it is wrong and what would be right.
    """
    found = WRITTEN.fullmatch(text)
    if found is None:
        raise FlowjaxError(
            f"exit rule {text!r}: write entropy<NATS, gap>SHARE or option-gap>SHARE, and "
            "@layer>=N behind it for layers from N on; or RUN@TOLERANCE, a finished run of "
            "`flowjax exit`"
        )
    measures: dict[str, Measure] = {name: name for name in RELATIONS}
    named = found["measure"]
    if named not in measures:
        raise FlowjaxError(f"exit rule {text!r}: {named!r} is none of {', '.join(RELATIONS)}")
    measure = measures[named]
    if found["relation"] != RELATIONS[measure]:
        raise FlowjaxError(
            f"exit rule {text!r}: it exits where the answer is sure; write "
            f"{measure}{RELATIONS[measure]}{found['value']}"
        )
    try:
        value = float(found["value"])
    except ValueError:
        raise FlowjaxError(f"exit rule {text!r}: {found['value']!r} is no number") from None
    if measure == ENTROPY and value <= 0:
        raise FlowjaxError(f"exit rule {text!r}: no entropy is below 0; give more")
    if measure != ENTROPY and value >= 1:
        raise FlowjaxError(f"exit rule {text!r}: no difference of probabilities is above 1")
    first = int(found["layer"] or 0)
    if first > layers - 2:
        raise FlowjaxError(
            f"exit rule {text!r}: layer {first}; the model has {layers} layers, and exits are "
            f"after layers 0 to {layers - 2}"
        )
    threshold = np.float32(-value if measure == ENTROPY else value)
    thresholds = np.full(layers, np.nextafter(threshold, np.float32(np.inf)), np.float32)
    thresholds[:first] = thresholds[-1] = np.inf
    return ExitRule(measure, jnp.asarray(thresholds))
