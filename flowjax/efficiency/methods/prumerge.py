"""LLaVA-PruMerge: tokens that the class token attends to stay, and the others are merged into them.

Shang et al. 2024, *LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models*
(arXiv 2403.15388), with a fixed share kept of every frame (the published code's `reduction_ratio`;
its rule that keeps outliers would give every sample a length of its own). To each token that stays,
those of the frame whose keys are nearest by cosine are added, weighted by the class token's
attention, and one more token is the weighted sum of all that do not stay. As in the published code,
attention is over the tower's whole width, not by head, and weights are not normalised again.

Where ours differs: the layer read is that whose output are the features, as the paper has it (the
code reads the one after, which is not loaded); merged are the decoder's tokens, which projectors
here pool from several patches, instead of patches before the projector; a token is merged with the
32/576 of its frame that the published 32 are of CLIP's 576; and tokens stay in the order of their
places, not of their attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.efficiency.choose import Choice, Clues, apply_choice, choose_places
from flowjax.efficiency.method import Applied, Method, Prompt, Setting, Subject
from flowjax.efficiency.shares import SHARES, most, share_of
from flowjax.precision import PRECISION

NEAR = 32 / 576
"""Part of a frame's tokens that is merged into each that stays."""


@dataclass(frozen=True)
class PruMerge:
    """Keep a share of every frame's tokens, the one that sums up the others included."""

    share: float
    looks = True

    @property
    def label(self) -> str:
        """The share."""
        return f"{self.share:g} of tokens"

    def best(self, tokens: int) -> int:
        """Tokens of a frame that stay, beside the one that sums up the others."""
        return max(1, share_of(tokens, self.share) - 1)

    def kept(self, tokens: Int[np.ndarray, " frames"], grid: tuple[int, int]) -> int:
        """See `Chooser.kept`."""
        frames, places = grid
        return int(tokens.sum()) - frames * (places - self.best(places) - 1)

    def choose(self, tokens: Float[Array, "v width"], clues: Clues, count: int) -> Choice:
        """See `Chooser.choose`."""
        assert clues.seen is not None
        frames, places = clues.grid.shape
        attention, best = clues.seen.attention, self.best(places)
        merged = jax.vmap(merge, (0, 0, 0, None))(
            tokens[clues.grid], attention, clues.seen.key, best
        )
        # The sum of the others takes the place of the first of them, behind all that stay.
        slots = most(attention, best + 1)
        stays = jnp.zeros((frames, places), bool).at[jnp.arange(frames)[:, None], slots].set(True)
        at = jnp.take_along_axis(clues.grid, slots, axis=1)
        return choose_places(tokens.at[at].set(merged.astype(tokens.dtype)), clues, stays, count)

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        return apply_choice(self, prompt)


def merge(
    tokens: Float[Array, "t width"],
    attention: Float[Array, " t"],
    key: Float[Array, "t d"],
    count: int,
) -> Float[Array, "k width"]:
    """One frame: what stays, in the order of places, and then the sum of the others.

    Args:
        tokens: of the frame.
        attention: of the class token to each.
        key: of each, in the vision tower.
        count: that stay.

    Returns:
        float32 [count + 1, width].
    """
    places = len(tokens)
    near = min(places - 1, max(1, round(NEAR * places)))
    best = most(attention, count)
    unit = key / jnp.maximum(jnp.linalg.norm(key, axis=-1, keepdims=True), 1e-12)
    cosine = jnp.dot(unit[best], unit.T, precision=PRECISION)
    cosine = cosine.at[jnp.arange(count), best].set(-jnp.inf)
    nearest = jax.lax.top_k(cosine, near)[1]
    weighted = attention[:, None] * tokens
    merged = tokens[best] + weighted[nearest].sum(axis=1)
    others = jnp.ones((places, 1)).at[best].set(0)
    return jnp.concatenate([merged, (others * weighted).sum(axis=0, keepdims=True)])


def _settings(subject: Subject) -> Sequence[Setting]:
    return [PruMerge(share) for share in SHARES] if subject.looks else []


METHOD = Method("PruMerge", "Shang et al. 2024, arXiv 2403.15388", _settings)
