"""Fewer frames: every other frame's tokens are left out, evenly over the video.

What every user does first. The frames are encoded and then dropped, so a vision tower that reads
several frames together has seen them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.efficiency.choose import Choice, Clues, apply_choice
from flowjax.efficiency.method import Applied, Method, Prompt, Setting, Subject
from flowjax.efficiency.shares import SHARES, share_of


@dataclass(frozen=True)
class Frames:
    """Keep a share of the frames: the middle ones of so many equal parts."""

    share: float
    looks = False

    @property
    def label(self) -> str:
        """The share."""
        return f"{self.share:g} of frames"

    def kept(self, tokens: Int[np.ndarray, " frames"], grid: tuple[int, int]) -> int:
        """See `Chooser.kept`."""
        del grid
        return int(tokens[self._chosen(len(tokens))].sum())

    def choose(self, tokens: Float[Array, "v width"], clues: Clues, count: int) -> Choice:
        """See `Chooser.choose`."""
        stays = jnp.isin(clues.frame, self._chosen(len(clues.grid)))
        kept = jnp.nonzero(stays, size=count)[0].astype(jnp.int32)
        return Choice(kept, tokens[kept])

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        return apply_choice(self, prompt)

    def _chosen(self, frames: int) -> Int[np.ndarray, " chosen"]:
        count = share_of(frames, self.share)
        return ((np.arange(count) + 0.5) * frames / count).astype(np.int64)


def _settings(subject: Subject) -> Sequence[Setting]:
    """Down to one frame."""
    return [Frames(share) for share in SHARES if share * subject.frames >= 1]


METHOD = Method("fewer frames", "", _settings)
