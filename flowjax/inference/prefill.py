"""Prefill of a compiled pathway: live rows only, and a cache of what decoding can read.

Equal to the masked full forward, to rounding: `Decoder.__call__` with the pathway's `EdgeMask`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flowjax.inference.compile import Compiled, Cut, Stage
from flowjax.kernels.pruned_attention import BlockMap, Implementation, pruned_attention
from flowjax.models.attention import Sources, attend_chunks
from flowjax.models.decoder import Decoder, DecoderLayer, deepened
from flowjax.models.embedded import Embedded
from flowjax.models.rope import Rotary
from flowjax.models.stack import layer_at


class Entries(NamedTuple):
    """Keys and values of consecutive layers: [layers, c, kv_heads, d] each."""

    key: Float[Array, "layers c kv_heads d"]
    value: Float[Array, "layers c kv_heads d"]


class ThinCache(NamedTuple):
    """What decoding reads, by the cuts of `Compiled`.

    prompt: keys and values of the prompt's positions.
    written: those of generated tokens, `room` entries each; None where no generated token reads
        another.
    generated: int32 [], generated tokens whose entries are there.
    rope: int32 [], the rotary position of the next token.
    """

    prompt: tuple[Entries, ...]
    written: tuple[Entries | None, ...]
    generated: Int[Array, ""]
    rope: Int[Array, ""]


@functools.partial(jax.jit, static_argnames=("implementation",))
def prefill(
    decoder: Decoder,
    embedded: Embedded,
    compiled: Compiled,
    *,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, " vocabulary"], ThinCache]:
    """Logits after the prompt, and the cache that `flowjax.inference.decode.decode` goes on from.

    Args:
        decoder: the model's decoder.
        embedded: the prompt, without padding.
        compiled: the pathway for the prompt's layout.
        implementation: of attention; None for the best there is.

    Returns:
        float32 [vocabulary], and the cache.
    """
    x = taken(embedded.x, compiled.rows)
    x, prompt = run_stages(
        decoder, x, embedded, compiled, compiled.stages, implementation=implementation
    )
    return decoder.logits(x)[0], thin_cache(embedded, compiled, prompt)


def run_stages(
    decoder: Decoder,
    x: Float[Array, "i width"],
    embedded: Embedded,
    compiled: Compiled,
    stages: Sequence[Stage],
    *,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "r width"], list[Entries]]:
    """Run consecutive stages.

    Args:
        decoder: the model's decoder.
        x: what the first stage reads.
        embedded: the prompt, without padding.
        compiled: that the stages are of, or whose mask and length they share.
        stages: some of them.
        implementation: of attention; None for the best there is.

    Returns:
        The last stage's rows, and what decoding reads of every cut of these stages.
    """
    rotary = decoder.config.rope(embedded.rope_position, compiled.length)
    entries = []
    for stage in stages:
        x, kept = _run(decoder, x, rotary, embedded, compiled, stage, implementation)
        entries += [entries_of(kept, cut) for cut in stage.cuts]
    return x, entries


def thin_cache(embedded: Embedded, compiled: Compiled, prompt: Sequence[Entries]) -> ThinCache:
    """The cache after a prompt, from the entries of every cut."""
    written = tuple(
        Entries(*(_room(part, compiled.room) for part in entries)) if cut.written else None
        for cut, entries in zip(compiled.cuts, prompt, strict=True)
    )
    return ThinCache(
        tuple(prompt),
        written,
        jnp.zeros((), jnp.int32),
        jnp.max(embedded.rope_position).astype(jnp.int32) + 1,
    )


def lower_prefill(
    decoder: Decoder,
    embedded: Embedded,
    compiled: Compiled,
    *,
    implementation: Implementation | None = None,
) -> tuple[jax.stages.Lowered, list[Array]]:
    """`prefill` lowered for ahead-of-time compilation, and the compiled pathway's arrays.

    The program reads decoder, prompt and these arrays.
    """
    pathway, structure = jax.tree.flatten(compiled)

    def run(decoder: Decoder, embedded: Embedded, pathway: list[Array]) -> tuple:
        compiled = structure.unflatten(pathway)
        return prefill(decoder, embedded, compiled, implementation=implementation)

    return jax.jit(run).lower(decoder, embedded, pathway), pathway


def _run(
    decoder: Decoder,
    x: Float[Array, "i width"],
    rotary: Rotary,
    embedded: Embedded,
    compiled: Compiled,
    stage: Stage,
    implementation: Implementation | None,
) -> tuple[Float[Array, "r width"], Entries]:
    """The stage's output rows, and the keys and values that decoding reads."""
    of_layer = layer_step(decoder, rotary, embedded, compiled, stage, implementation)

    def step(x: Array, scanned: tuple) -> tuple[Array, Entries]:
        x, kept = of_layer(x, *scanned)
        return x, kept.entries

    layers = stage.first + jnp.arange(stage.layers)
    if stage.layers > 1:
        return jax.lax.scan(step, x, (layers, stage.blocks))
    # A single layer may take rows away, which no scan can.
    x, kept = step(x, jax.tree.map(lambda leaf: leaf[0], (layers, stage.blocks)))
    return x, Entries(*(part[None] for part in kept))


class Kept(NamedTuple):
    """What is kept of a layer, beside its output rows.

    entries: keys and values [c, kv_heads, d] that decoding reads.
    seen: what was asked of its attention.
    """

    entries: Entries
    seen: Float[Array, " a"] | None


Step = Callable[
    [Float[Array, "i width"], Int[Array, ""], BlockMap | None],
    tuple[Float[Array, "r width"], Kept],
]
"""Input rows, a layer and its block map, to output rows and what is kept."""

Look = Callable[[Float[Array, "r heads d"], Sources, Int[Array, ""]], Float[Array, " a"]]
"""Queries of a layer's rows, its sources and the layer, to what is to be known of its attention."""


def layer_step(
    decoder: Decoder,
    rotary: Rotary,
    embedded: Embedded,
    compiled: Compiled,
    stage: Stage,
    implementation: Implementation | None = None,
    look: Look | None = None,
) -> Step:
    """What each layer of a stage does.

    look: asked of every layer that reads something.
    """
    config, mask = decoder.config, compiled.mask
    # The kernels know groups, not distances; a window that reaches past the prompt cuts nothing.
    binding = config.window is not None and config.window < compiled.length
    own, of_sources = (
        Rotary(*(table[position] for table in rotary))
        for position in (stage.row_position, stage.source_position)
    )
    deepstack = embedded.deepstack
    if deepstack is not None:
        deepstack = deepstack[:, stage.row_position]

    def step(x: Array, index: Array, blocks: BlockMap | None) -> tuple[Array, Kept]:
        layer: DecoderLayer = layer_at(decoder.layers, index)
        if not len(stage.source_position):
            x = taken(x, stage.rows)
            attended = jnp.zeros((len(x), config.heads, config.head_dim), x.dtype)
            kept = jnp.zeros((0, config.kv_heads, config.head_dim), x.dtype)
            x = deepened(layer.finish(x, attended), deepstack, index)
            return x, Kept(Entries(kept, kept), None)
        key, value, _ = layer.sources(taken(x, stage.sources), stage.source_position, of_sources)
        x = taken(x, stage.rows)
        query = layer.queries(x, own)
        sources = Sources(key, value, stage.source_position)
        if binding or blocks is None:
            attended = attend_chunks(
                query, stage.row_position, [sources], mask.at(index), window=config.window
            )
        else:
            attended = pruned_attention(
                query,
                key,
                value,
                query_position=stage.row_position,
                key_position=stage.source_position,
                blocks=blocks,
                implementation=implementation,
            )
        x = deepened(layer.finish(x, attended), deepstack, index)
        entries = Entries(taken(key, stage.keep), taken(value, stage.keep))
        return x, Kept(entries, None if look is None else look(query, sources, index))

    return step


def entries_of(kept: Entries, cut: Cut) -> Entries:
    """Of one cut, from what its stage keeps."""
    layers = slice(cut.offset, cut.offset + cut.layers)
    return Entries(*(part[layers] if cut.take is None else part[layers, cut.take] for part in kept))


def _room(entries: Float[Array, "layers c kv_heads d"], room: int) -> Array:
    layers, _, *head = entries.shape
    return jnp.zeros((layers, room, *head), entries.dtype)


def taken(x: Array, indices: Int[Array, " k"] | None) -> Array:
    """Some rows of `x`; all of them for None."""
    return x if indices is None else x[indices]
