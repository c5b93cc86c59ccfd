"""Random video tokens, drawn anew for every sample: what any rule of choosing has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.efficiency.choose import Choice, Clues, apply_choice
from flowjax.efficiency.method import Applied, Method, Prompt, Setting, Subject
from flowjax.efficiency.shares import SHARES, most, share_of


@dataclass(frozen=True)
class RandomTokens:
    """Keep a share of the video tokens, each with the same chance."""

    share: float
    seed: int = 0
    looks = False

    @property
    def label(self) -> str:
        """The share."""
        return f"{self.share:g} of tokens"

    def kept(self, tokens: Int[np.ndarray, " frames"], grid: tuple[int, int]) -> int:
        """See `Chooser.kept`."""
        del grid
        return share_of(int(tokens.sum()), self.share)

    def choose(self, tokens: Float[Array, "v width"], clues: Clues, count: int) -> Choice:
        """See `Chooser.choose`."""
        key = jax.random.fold_in(jax.random.key(self.seed), clues.draw)
        kept = most(jax.random.uniform(key, (len(tokens),)), count)
        return Choice(kept, tokens[kept])

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        return apply_choice(self, prompt)


def _settings(subject: Subject) -> Sequence[Setting]:
    del subject
    return [RandomTokens(share) for share in SHARES]


METHOD = Method("random tokens", "", _settings)
