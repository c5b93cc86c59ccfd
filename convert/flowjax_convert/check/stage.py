"""Stages of the comparison, and how much rounding explains in each."""

from dataclasses import dataclass

GREY = 1 / 255
"""A step of a colour, before the values are divided by their standard deviation."""

EXACT = 0.0


@dataclass(frozen=True)
class Bounds:
    """Largest error of a stage: of each row's norm, as a share of it.

    vision: features and embeddings, after a whole tower.
    tokens: token embeddings.
    layer: one decoder layer or norm, given what the other side reads.
    logits: after all layers.
    """

    vision: float
    tokens: float
    layer: float
    logits: float


BOUNDS = {
    "float32": Bounds(vision=1e-3, tokens=1e-6, layer=1e-4, logits=1e-3),
    "bfloat16": Bounds(vision=6e-2, tokens=1e-6, layer=3e-2, logits=6e-2),
}
PIXELS, PIXELS_TORCHVISION = 1e-5, 2 * GREY / 0.26
"""Of pixel values, in units of the values; the second is two grey levels."""


@dataclass(frozen=True)
class Stage:
    """One line of the comparison.

    error: how much differs; None where it was not compared.
    bound: the largest error that rounding explains.
    note: what else to know.
    """

    name: str
    error: float | None
    bound: float
    note: str = ""

    @property
    def beyond(self) -> bool:
        """Whether more differs than rounding explains; what is not a number is beyond it."""
        return self.error is not None and not self.error <= self.bound
