"""What every engine gives: logits at the last position, without and with each knockout."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from flowjax.edges import Knockout
from flowjax.layout import TokenLayout
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.patches import Patch


class Answers(NamedTuple):
    """Logits of one prompt.

    base: float32 [vocabulary], without knockout.
    windows: in any order, indices into the knockouts with their logits float32 [k, vocabulary].
    """

    base: Float[Array, " vocabulary"]
    windows: Iterator[tuple[Sequence[int], Float[Array, "k vocabulary"]]]

    def collect(self, knockouts: int) -> Float[np.ndarray, "knockouts vocabulary"]:
        """All windows' logits in the order of the knockouts."""
        out = np.full((knockouts, len(self.base)), np.nan, np.float32)
        for indices, logits in self.windows:
            out[list(indices)] = np.asarray(logits)
        return out


Engine = Callable[[Decoder, Embedded, TokenLayout, Sequence[Knockout | Patch]], Answers]
"""Decoder, prompt, its token groups and the knockouts or patches, to answers."""
