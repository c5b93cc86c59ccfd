"""A prompt as the decoder reads it."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Embedded(NamedTuple):
    """A prompt as the decoder reads it.

    x: embeddings [n, width].
    rope_position: int32 [axes, n], what rotary embedding reads.
    deepstack: [k, n, width], added to the hidden states after the first k layers (see
        `flowjax.models.decoder.deepened`).
    length: int32 [], positions of the prompt itself where rows after them are padding, which
        causality hides; None where there is no padding.
    """

    x: Float[Array, "n width"]
    rope_position: Int[Array, "axes n"]
    deepstack: Float[Array, "k n width"] | None = None
    length: Int[Array, ""] | None = None

    @classmethod
    def of(cls, x: Float[Array, "n width"]) -> "Embedded":
        """A prompt whose rows have the rotary positions 0 to n - 1."""
        return cls(x, jnp.arange(len(x), dtype=jnp.int32)[None])

    @property
    def last(self) -> int | Int[Array, ""]:
        """The prompt's last position."""
        return (len(self.x) if self.length is None else self.length) - 1

    def padded(self, rows: int) -> "Embedded":
        """Right padding with zeros to `rows` rows; `length` stays that of the prompt itself."""
        none, more = (0, 0), (0, rows - len(self.x))
        return Embedded(
            jnp.pad(self.x, (more, none)),
            jnp.pad(self.rope_position, (none, more)),
            None if self.deepstack is None else jnp.pad(self.deepstack, (none, more, none)),
            jnp.asarray(self.last + 1, jnp.int32),
        )
