"""How long and how fast a model is trained."""

from dataclasses import dataclass

import jax
import optax

from flowjax.train.parameters import Parameters

MATRICES = ("kernel", "lora_a", "lora_b")
"""Names of the weights of linear layers."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    steps: in all. peak: learning rate after `warmup` steps; then a cosine down to `floor * peak`.
    decay: AdamW's weight decay, of linear layers' weights only. clip: largest norm of the gradient.
    beta2: of AdamW's second moment.
    """

    steps: int
    peak: float
    warmup: int
    decay: float
    clip: float
    beta2: float = 0.98
    floor: float = 0.01

    def rate(self) -> optax.Schedule:
        """The learning rate of every step, which are counted from 0."""
        return optax.warmup_cosine_decay_schedule(
            0.0, self.peak, self.warmup, self.steps, self.peak * self.floor
        )

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with clipped gradients."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.adamw(self.rate(), b2=self.beta2, weight_decay=self.decay, mask=_is_matrix),
        )


def _is_matrix(parameters: Parameters) -> Parameters:
    """Of every leaf, whether it is the weight of a linear layer."""
    return jax.tree.map_with_path(
        lambda path, _: any(getattr(entry, "key", None) in MATRICES for entry in path), parameters
    )
