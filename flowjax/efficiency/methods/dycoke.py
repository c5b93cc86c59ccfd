"""Temporal merging: a token that is like the one at its place in an earlier frame is left out.

The first stage of DyCoke (Tao et al. 2025, *DyCoke: Dynamic Compression of Tokens for Fast Video
Large Language Models*, CVPR 2025, arXiv 2411.15024). In windows of four frames the second and the
fourth are compared with the one before them, the third with the first, place by place, by the
cosine of the decoder's tokens; of each of these three a share is left out, the most alike first.
Its second stage prunes the cache while decoding, which a prefill does not show.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.efficiency.choose import Choice, Clues, apply_choice, choose_places
from flowjax.efficiency.method import Applied, Method, Prompt, Setting, Subject
from flowjax.efficiency.shares import most

BACK = (0, 1, 2, 1)
"""How many frames before it a frame of a window is compared with; the first is kept whole."""


@dataclass(frozen=True)
class DyCoke:
    """Leave out a share of the tokens of three frames in four."""

    merged: float
    looks = False

    @property
    def label(self) -> str:
        """The share."""
        return f"{self.merged:g} of 3 frames in 4 merged"

    def kept(self, tokens: Int[np.ndarray, " frames"], grid: tuple[int, int]) -> int:
        """See `Chooser.kept`."""
        frames, places = grid
        thin = sum(BACK[frame % len(BACK)] > 0 for frame in range(frames))
        return int(tokens.sum()) - thin * (places - self.least(places))

    def least(self, places: int) -> int:
        """Tokens that stay of a frame that is compared."""
        return int((1 - self.merged) * places)

    def choose(self, tokens: Float[Array, "v width"], clues: Clues, count: int) -> Choice:
        """See `Chooser.choose`."""
        frames, places = clues.grid.shape
        back = np.resize(BACK, frames)
        shown = tokens[clues.grid].astype(jnp.float32)
        unit = shown / jnp.maximum(jnp.linalg.norm(shown, axis=-1, keepdims=True), 1e-12)
        alike = (unit * unit[np.arange(frames) - back]).sum(axis=-1)
        kept = most(-alike, self.least(places))
        stays = jnp.zeros((frames, places), bool).at[jnp.arange(frames)[:, None], kept].set(True)
        stays = stays | (back == 0)[:, None]
        return choose_places(tokens, clues, stays, count)

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        return apply_choice(self, prompt)


def _settings(subject: Subject) -> Sequence[Setting]:
    """The published share is 0.7."""
    return [DyCoke(share) for share in (0.3, 0.5, 0.7, 0.9)] if subject.frames > 1 else []


METHOD = Method("temporal merging", "Tao et al. 2025, arXiv 2411.15024, first stage", _settings)
