"""What every engine gives: logits at the last position, without and with each knockout."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.edges import Knockout
from flowjax.layout import TokenLayout
from flowjax.models.decoder import Decoder


class Embedded(NamedTuple):
    """A prompt as the decoder reads it.

    x: embeddings [n, width].
    rope_position: int32 [axes, n], what rotary embedding reads.
    deepstack: [k, n, width], added to the hidden states after the first k layers (see
        `flowjax.models.decoder.deepened`).
    """

    x: Float[Array, "n width"]
    rope_position: Int[Array, "axes n"]
    deepstack: Float[Array, "k n width"] | None = None

    def padded(self, length: int) -> "Embedded":
        """Right padding with zeros to `length` rows."""
        none, more = (0, 0), (0, length - len(self.x))
        return Embedded(
            jnp.pad(self.x, (more, none)),
            jnp.pad(self.rope_position, (none, more)),
            None if self.deepstack is None else jnp.pad(self.deepstack, (none, more, none)),
        )


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


Engine = Callable[[Decoder, Embedded, TokenLayout, Sequence[Knockout]], Answers]
"""Decoder, prompt, its token groups and the knockouts, to answers."""
