"""FastV: after layer K only the video tokens stay that the last position attends to most.

Chen et al. 2024, *An Image is Worth 1/2 Tokens After Layer 2* (ECCV 2024, arXiv 2403.06764). The
attention is that of the last row in layer K, counted from 1, averaged over heads; the tokens that
stay keep their positions, and the cache of the first K layers keeps all. In layer K itself only the
rows that stay are computed beyond their keys and values: the others are read by nobody.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.efficiency.cut import KEPT_COMPILED
from flowjax.efficiency.method import Applied, Masked, Method, Prefilled, Prompt, Setting, Subject
from flowjax.efficiency.shares import SHARES, most, share_of
from flowjax.inference.compile import Compiled
from flowjax.inference.cost import PrefillCost
from flowjax.inference.drop import Drop, compile_drop, place
from flowjax.inference.prefill import run_stages, thin_cache
from flowjax.masks import EdgeMask, causal_mask
from flowjax.models.attention import attend
from flowjax.models.cost import LayerCost
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.models.rope import Rotary
from flowjax.models.stack import layer_at
from flowjax.padding import LENGTH_STEP, pad_prompt, round_up


@dataclass(frozen=True)
class FastV:
    """Keep a share of the video tokens after layer K, counted from 1."""

    layer: int
    share: float

    @property
    def label(self) -> str:
        """K and what is kept."""
        return f"K {self.layer}, {self.share:g} of tokens"

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        config, length = prompt.decoder.config, prompt.layout.length
        fewer = share_of(len(prompt.video), self.share)
        drop = _compiled(length, length - len(prompt.video) + fewer, self.layer, config)
        video = jnp.asarray(prompt.video)

        def masked() -> Masked:
            stays = np.zeros(round_up(length, LENGTH_STEP), bool)
            stays[:length] = True
            stays[prompt.video] = False
            score = prompt.last_attention[self.layer - 1]
            stays[prompt.video[np.asarray(most(jnp.asarray(score[prompt.video]), fewer))]] = True
            allowed = np.ones((config.layers, 1, 2, 2), bool)
            allowed[self.layer :, ..., 1] = False
            mask = EdgeMask(jnp.asarray(~stays, jnp.int32), jnp.asarray(allowed))
            return Masked(pad_prompt(prompt.embedded), mask)

        def compiled(kept: Int[Array, " k"] | None) -> Compiled:
            assert kept is not None
            return place(drop, kept, config.layers)

        return Applied(
            prefill_dropping,
            (prompt.decoder, prompt.embedded, drop, video),
            masked,
            lambda: self.cost(prompt, fewer),
            compiled,
        )

    def cost(self, prompt: Prompt, fewer: int) -> PrefillCost:
        """Counts, where the edges of layer K are those of tokens kept at even distances."""
        config, n, video = prompt.decoder.config, prompt.layout.length, prompt.video
        count, stay, layer = LayerCost(config), n - len(video) + fewer, self.layer
        kept = np.ones(n, bool)
        kept[np.delete(video, np.linspace(0, len(video) - 1, fewer).round().astype(int))] = False
        reach = np.flatnonzero(kept) + 1
        deep = config.layers - layer
        edges = config.heads * (
            (layer - 1) * (n * (n + 1) // 2)
            + int(reach.sum())
            + (deep - 1) * (stay * (stay + 1) // 2)
            + stay
        )
        rows = (layer - 1) * n + stay + (deep - 1) * stay + 1
        sources = layer * n + deep * stay
        return PrefillCost(
            flops=rows * count.row + sources * count.source + edges * count.edge + count.logits,
            edges=edges,
            blocks=0,
            cache_bytes=sources * count.cached * prompt.value_bytes,
        )


_compiled = functools.lru_cache(KEPT_COMPILED)(compile_drop)


@jax.jit
def prefill_dropping(
    decoder: Decoder, embedded: Embedded, drop: Drop, video: Int[Array, " v"]
) -> Prefilled:
    """Run the layers before the choice, choose, and go on with what stays.

    Args:
        decoder: the model's decoder.
        embedded: the prompt, without padding.
        drop: what is known of it before.
        video: positions of its video.
    """
    every = jnp.arange(drop.length, dtype=jnp.int32)
    whole = place(drop, every[: drop.stay], decoder.config.layers)
    x, entries = run_stages(decoder, embedded.x, embedded, whole, drop.before)
    score = _read_by_last(decoder, x, embedded, drop.layer - 1)
    best = most(score[video], drop.stay - (drop.length - len(video)))
    stays = jnp.ones(drop.length, bool).at[video].set(False).at[video[best]].set(True)
    kept = jnp.nonzero(stays, size=drop.stay)[0].astype(jnp.int32)
    compiled = place(drop, kept, decoder.config.layers)
    rest = compiled.stages[len(drop.before) :]
    x, more = run_stages(decoder, x, embedded, compiled, rest)
    cache = thin_cache(embedded, compiled, [*entries, *more])
    return Prefilled(decoder.logits(x)[0], cache, kept)


def _read_by_last(
    decoder: Decoder, x: Float[Array, "n width"], embedded: Embedded, index: int
) -> Float[Array, " n"]:
    """Attention of the last row in a layer, given its input; the mean over heads."""
    layer = layer_at(decoder.layers, index)
    every = jnp.arange(len(x), dtype=jnp.int32)
    rotary = decoder.config.rope(embedded.rope_position, len(x))
    own = layer.sources(x, every, rotary)
    query = layer.queries(x[-1:], Rotary(*(table[-1:] for table in rotary)))
    mask = causal_mask(1, every).at(0)
    weights = attend(query, every[-1:], [own], mask, window=decoder.config.window).weights
    return weights[:, 0].mean(axis=0)


def _settings(subject: Subject) -> Sequence[Setting]:
    """K is 2, as published; fewer tokens the further on."""
    return [FastV(2, share) for share in SHARES] if subject.layers > 2 else []


METHOD = Method("FastV", "Chen et al. 2024, arXiv 2403.06764", _settings)
