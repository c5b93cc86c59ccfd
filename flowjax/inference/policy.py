"""When edge sets close, by what has been computed so far."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from flowjax.inference.exit_rule import ENTROPY, OPTION_GAP
from flowjax.inference.routes import SETS

Doubt = Literal["attention", "entropy", "option-gap", "layer"]
ATTENTION, LAYER = "attention", "layer"
DOUBTS: tuple[Doubt, ...] = (ATTENTION, ENTROPY, OPTION_GAP, LAYER)


def decisions_of(layers: int) -> tuple[int, ...]:
    """Layers before which sets may close, where nobody says others: after every eighth of them."""
    step = max(1, layers // 8)
    return tuple(range(step, layers, step))


@dataclass(frozen=True)
class Policy:
    """Edge sets close before a decision at which the doubt is at most a threshold.

    doubt: 0 to 1. "attention": the share of attention along the set's edges in the layer before,
        the mean over heads and over the rows that read them. "entropy": of what the last position
        reads as there, of log(vocabulary). "option-gap": 1 - the gap between the two most probable
        options there. "layer": none, so that all sets close at the first decision.
    threshold: below 0 nothing ever closes.
    first: the first layer before which sets may close.
    sets: that may close, of `SETS` and in their order.
    """

    doubt: Doubt
    threshold: float
    first: int
    sets: tuple[str, ...] = SETS

    def closed(self, before: int, doubts: Float[np.ndarray, " open"], layer: int) -> int:
        """How many of `SETS` are closed from a layer on.

        Args:
            before: how many were.
            doubts: of the others, in their order.
            layer: that is decided about.
        """
        now = before
        if layer < self.first:
            return now
        for place, name in enumerate(SETS):
            if name not in self.sets or place < before:
                continue
            if doubts[place - before] > self.threshold:
                break  # what is later in the flow waits for what is earlier
            now = place + 1
        return now
