"""One generated token in one layer, over a thinned cache."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flowjax.inference.compile import Compiled, Cut
from flowjax.inference.prefill import Entries, ThinCache
from flowjax.masks import NOBODY
from flowjax.models.attention import Sources, attend
from flowjax.models.decoder import Decoder, DecoderLayer
from flowjax.models.rope import Rotary
from flowjax.models.stack import layer_at


class Now(NamedTuple):
    """Where a generated token stands.

    position: int32 [1], absolute; rotary: its rotation.
    before: int32 [room], positions of the generated tokens before it; `NOBODY` in free places.
    """

    position: Int[Array, " 1"]
    rotary: Rotary
    before: Int[Array, " room"]


def now_of(decoder: Decoder, cache: ThinCache, compiled: Compiled) -> Now:
    """Where the next token stands."""
    places = jnp.arange(compiled.room, dtype=jnp.int32)
    return Now(
        (compiled.length + cache.generated)[None],
        decoder.config.rope((cache.rope + cache.generated)[None, None], compiled.length),
        jnp.where(places < cache.generated, compiled.length + places, NOBODY),
    )


TokenStep = Callable[
    [Float[Array, "1 width"], tuple[Int[Array, ""], Entries, Entries | None]],
    tuple[Float[Array, "1 width"], Entries | None],
]
"""A token's state, and a layer with its entries, to its state after it and its own entries."""


def token_step(decoder: Decoder, compiled: Compiled, cut: Cut, now: Now) -> TokenStep:
    """What each layer of a cut does with a new token."""

    def step(
        x: Array, scanned: tuple[Array, Entries, Entries | None]
    ) -> tuple[Array, Entries | None]:
        index, prompt, written = scanned
        layer: DecoderLayer = layer_at(decoder.layers, index)
        query = layer.queries(x, now.rotary)
        own = layer.sources(x, now.position, now.rotary)
        blocks = [Sources(prompt.key, prompt.value, cut.position)] if len(cut.position) else []
        if written is not None:
            blocks += [Sources(written.key, written.value, now.before), own]
        attended = jnp.zeros_like(query)
        if blocks:
            edges, window = compiled.mask.at(index), decoder.config.window
            attended = attend(query, now.position, blocks, edges, window=window).output
        kept = None if written is None else Entries(own.key, own.value)
        return layer.finish(x, attended), kept

    return step


def with_token(cache: ThinCache, own: Sequence[Entries | None]) -> ThinCache:
    """The cache with a new token's entries of every cut."""
    written = (
        None if before is None or new is None else _append(before, new, cache.generated)
        for before, new in zip(cache.written, own, strict=True)
    )
    return cache._replace(written=tuple(written), generated=cache.generated + 1)


def _append(written: Entries, own: Entries, place: Int[Array, ""]) -> Entries:
    return Entries(
        *(
            jax.lax.dynamic_update_slice_in_dim(entries, new, place, axis=1)
            for entries, new in zip(written, own, strict=True)
        )
    )
