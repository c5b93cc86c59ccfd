"""Running a plan: one baseline prefill, then suffixes from its kept states.

Exact: the same numbers as `flowjax.sweeps.reference`, to float32 rounding.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Lowered
from jaxtyping import Array, Bool, Float, Int

from flowjax.compilation import memory_of
from flowjax.edges import Knockout, edge_table
from flowjax.layout import TokenLayout
from flowjax.masks import NOBODY, EdgeMask, Mask
from flowjax.mesh import DATA
from flowjax.models.attention import Sources, attend
from flowjax.models.decoder import Decoder, Keep, deepened
from flowjax.models.edit import sites
from flowjax.models.embedded import Embedded
from flowjax.models.flash import FEW, BlockedMask, Maps, attend_rows, make_maps
from flowjax.models.rope import Rotary
from flowjax.models.stack import layer_at
from flowjax.padding import GROUP_STEP, round_up
from flowjax.patches import Patch, PatchArrays, site_shape
from flowjax.sweeps.answers import Answers
from flowjax.sweeps.cost import by_kernel
from flowjax.sweeps.plan import Batch, Plan, footprint, plan_sweep


class Baseline(NamedTuple):
    """What the prefill keeps.

    hidden: [layers, n, width], every layer's input.
    key, value: [layers, n, kv_heads * d] (see `flowjax.models.decoder.Trace`).
    rotary: of every row, float32 [n, d] each.
    logits: float32 [vocabulary], at the last position.
    prompt: as it was read, with its padding.
    """

    hidden: Float[Array, "layers n width"]
    key: Float[Array, "layers n kv_width"]
    value: Float[Array, "layers n kv_width"]
    rotary: Rotary
    logits: Float[Array, " vocabulary"]
    prompt: Embedded


@jax.jit
def prefill(decoder: Decoder, prompt: Embedded) -> Baseline:
    """Run the prompt once, keeping what windows start from."""
    trace = decoder(prompt, keep=Keep(hidden=True, sources=True))
    assert trace.hidden is not None and trace.sources is not None
    logits = decoder.last_logits(trace.output, prompt)
    return Baseline(trace.hidden, *trace.sources, trace.rotary, logits, prompt)


@functools.partial(jax.jit, static_argnames=("rows", "prefix"))
def suffixes(
    decoder: Decoder,
    base: Baseline,
    group: Int[Array, " n"],
    allowed: Bool[Array, "batch layers heads g g"],
    maps: Maps | None,
    start: Int[Array, ""],
    first_row: Int[Array, ""],
    patch: PatchArrays | None = None,
    *,
    rows: int,
    prefix: int,
) -> Float[Array, "batch vocabulary"]:
    """Logits at the last position under each window's table.

    Args:
        decoder: the model's decoder.
        base: the prefill's kept states, which all windows share.
        group: the group of every position.
        allowed: one table per window.
        maps: block maps of the rows with a leading batch axis; None for plain attention.
        start: the first layer to run.
        first_row: the first of the `rows` rows to compute.
        patch: of each window; its values are shared, rows and layers have a leading batch axis.
        rows: rows computed.
        prefix: kept rows that are read (those before `first_row` of them).
    """
    run = functools.partial(_suffix, decoder, base, start, first_row, rows, prefix)

    def one(table: Array, maps: Maps | None, row: Array | None, layer: Array | None) -> Array:
        mask = EdgeMask(group, table)
        bound = None if patch is None else dataclasses.replace(patch, row=row, layer=layer)
        return run(mask if maps is None else BlockedMask(mask, maps), bound)

    places = (None, None) if patch is None else (patch.row, patch.layer)
    return jax.vmap(one)(allowed, maps, *places)


def _suffix(
    decoder: Decoder,
    base: Baseline,
    start: Int[Array, ""],
    first_row: Int[Array, ""],
    rows: int,
    prefix: int,
    mask: Mask,
    patch: PatchArrays | None,
) -> Float[Array, " vocabulary"]:
    position = first_row + jnp.arange(rows, dtype=jnp.int32)
    rotary = Rotary(
        *(jax.lax.dynamic_slice_in_dim(table, first_row, rows) for table in base.rotary)
    )
    deepstack = base.prompt.deepstack
    if deepstack is not None:
        deepstack = jax.lax.dynamic_slice_in_dim(deepstack, first_row, rows, axis=1)
    window = decoder.config.window
    everywhere = jnp.arange(len(base.prompt.x), dtype=jnp.int32)
    kept = everywhere[:prefix]
    kept = jnp.where(kept < first_row, kept, NOBODY)

    def heads(rows: Array) -> Array:
        width = decoder.config.head_dim
        return rows.reshape(len(rows), rows.shape[1] // width, width)  # of no rows, too

    def step(index: Array, x: Array) -> Array:
        layer = layer_at(decoder.layers, index)
        own = layer.sources(x, position, rotary)
        query = layer.queries(x, rotary)
        whole = Sources(heads(base.key[index]), heads(base.value[index]), everywhere)
        attended = attend_rows(query, own, mask.at(index), kept=whole, prefix=prefix, window=window)
        at = sites(edit, index)
        return at("residual", deepened(layer.finish(x, attended, at), deepstack, index))

    edit = None if patch is None else patch.edit(position)
    x = jax.lax.dynamic_slice_in_dim(base.hidden[start], first_row, rows)
    final = decoder.config.layers - 1
    x = jax.lax.fori_loop(start, final, step, x)

    layer = layer_at(decoder.layers, final)
    own = layer.sources(x, position, rotary)
    row = (base.prompt.last - first_row)[None]
    query = layer.queries(x[row], Rotary(rotary.cos[row], rotary.sin[row]))
    cached = Sources(heads(base.key[final, :prefix]), heads(base.value[final, :prefix]), kept)
    attended = attend(query, position[row], [cached, own], mask.at(final), window=window)
    at = sites(None if patch is None else patch.edit(position[row]), jnp.asarray(final))
    output = layer.finish(x[row], attended.output, at)
    at_row = None if deepstack is None else deepstack[:, row]
    return decoder.logits(at("residual", deepened(output, at_row, final)))[0]


def planned(
    decoder: Decoder,
    embedded: Embedded,
    layout: TokenLayout,
    knockouts: Sequence[Knockout | Patch],
    *,
    budget: int | None = None,
) -> Answers:
    """Logits at the last position under every knockout, as `reference.full_forwards` gives them.

    Args:
        decoder: the model's decoder.
        embedded: the prompt.
        layout: its token groups.
        knockouts: in any order, and patches among them.
        budget: device bytes for kept states and one batch; None for no limit.

    Raises:
        FlowjaxError: see `edge_mask` and `plan_sweep`.
    """
    plans = [
        (
            indices,
            plan_sweep(
                layout.length,
                [footprint(layout, knockouts[index]) for index in indices],
                decoder.config,
                value_bytes=embedded.x.dtype.itemsize,
                budget=budget,
                kernel=decoder.kernel_for(layout.length) is not None,
                platform=jax.default_backend(),
                multiple=1 if (mesh := mesh_of(decoder)) is None else mesh.shape[DATA],
            ),
        )
        for indices in _together(knockouts)
    ]
    base = prefill(decoder, embedded.padded(plans[0][1].length))

    def windows() -> Iterator[tuple[Sequence[int], Float[Array, "batch vocabulary"]]]:
        for indices, plan in plans:
            chosen = [knockouts[index] for index in indices]
            for batch, logits in run_plan(decoder, base, layout, chosen, plan):
                yield [indices[index] for index in batch], logits

    return Answers(base.logits, windows())


def _together(knockouts: Sequence[Knockout | Patch]) -> list[list[int]]:
    """Indices of what one compiled function can run: knockouts, or patches of the same values."""
    found: dict[tuple, list[int]] = {}
    for index, knockout in enumerate(knockouts):
        kind = ()
        if isinstance(knockout, Patch):
            kind = (id(knockout.values), knockout.at, knockout.how)
        found.setdefault(kind, []).append(index)
    return list(found.values()) or [[]]


def run_plan(
    decoder: Decoder,
    base: Baseline,
    layout: TokenLayout,
    knockouts: Sequence[Knockout | Patch],
    plan: Plan,
) -> Iterator[tuple[Sequence[int], Float[Array, "batch vocabulary"]]]:
    """Run the batches of a plan from a prefill of the same prompt.

    knockouts: only knockouts, or only patches with the same values, site and way.
    """
    made: _Made = {}
    for batch in plan.batches:
        arguments = _batch_arguments(decoder, layout, knockouts, plan, batch, made)
        logits = suffixes(decoder, base, *arguments, rows=batch.rows, prefix=batch.prefix)
        yield batch.knockouts, logits[: len(batch.knockouts)]


def peak_bytes(
    decoder: Decoder,
    embedded: Embedded,
    layout: TokenLayout,
    knockouts: Sequence[Knockout],
    plan: Plan,
) -> int:
    """Device bytes a plan takes beside the parameters, as the compiler allots them.

    Kept states, and the largest of the temporaries of its compiled functions.
    """
    kept = peak = 0
    for batch, lowered in lower_plan(
        decoder, embedded.padded(plan.length), layout, knockouts, plan
    ):
        memory = memory_of(lowered.compile())
        peak = max(peak, memory.temp_size_in_bytes)
        if batch is None:
            kept = memory.output_size_in_bytes
    return kept + peak


def lower_plan(
    decoder: Decoder,
    padded: Embedded,
    layout: TokenLayout,
    knockouts: Sequence[Knockout | Patch],
    plan: Plan,
    place: Callable[[Any], Any] = lambda leaf: leaf,
) -> Iterator[tuple[Batch | None, Lowered]]:
    """Every program of a plan, lowered: the prefill (None), and one batch of every shape.

    Args:
        decoder, padded: arrays, or their shapes; the prompt as long as the plan.
        layout, knockouts, plan: as in `run_plan`.
        place: an array to what stands for it, such as its shape on another device.
    """
    first = prefill.lower(decoder, padded)
    yield None, first
    base = jax.tree.map(place, first.out_info)
    yield from lower_batches(decoder, base, layout, knockouts, plan, place)


def lower_batches(
    decoder: Decoder,
    base: Baseline,
    layout: TokenLayout,
    knockouts: Sequence[Knockout | Patch],
    plan: Plan,
    place: Callable[[Any], Any] = lambda leaf: leaf,
) -> Iterator[tuple[Batch, Lowered]]:
    """One batch of every shape of a plan, lowered: that with the most layers to run.

    base: what `prefill` gives, or its shapes where it lies; the rest as in `lower_plan`.
    """
    for batch in {batch.shape: batch for batch in reversed(plan.batches)}.values():
        arguments = _batch_arguments(decoder, layout, knockouts, plan, batch, {})
        placed = jax.tree.map(place, arguments)
        yield (
            batch,
            suffixes.lower(decoder, base, *placed, rows=batch.rows, prefix=batch.prefix),
        )


def _batch_arguments(
    decoder: Decoder,
    layout: TokenLayout,
    knockouts: Sequence[Knockout | Patch],
    plan: Plan,
    batch: Batch,
    made: "_Made",
) -> tuple[Array, Array, Maps | None, Array, Array, PatchArrays | None]:
    """Group of every position, tables, maps, start layer, first row, and patches if they are."""
    group = np.pad(layout.cell, (0, plan.length - layout.length)).astype(np.int32)
    tables = _batch_tables(decoder, layout, knockouts, batch)
    return (
        jnp.asarray(group),
        _divided(decoder, tables),
        _batch_maps(decoder, group, tables, batch, made),
        jnp.asarray(batch.start, jnp.int32),
        jnp.asarray(batch.first_row, jnp.int32),
        _batch_patches(decoder, layout, knockouts, batch),
    )


def _batch_patches(
    decoder: Decoder, layout: TokenLayout, knockouts: Sequence[Knockout | Patch], batch: Batch
) -> PatchArrays | None:
    """The patches of a batch, padded with patches of nothing; None for knockouts."""
    config = decoder.config
    chosen = [knockouts[index] for index in batch.knockouts]
    bound = [
        patch.arrays(layout, config.layers, site_shape(config, patch.at))
        for patch in chosen
        if isinstance(patch, Patch)
    ]
    if not bound:
        return None
    row = np.zeros((batch.size, layout.length), bool)
    layer = np.zeros((batch.size, config.layers), bool)
    row[: len(bound)] = [patch.row for patch in bound]
    layer[: len(bound)] = [patch.layer for patch in bound]
    return dataclasses.replace(bound[0], row=_divided(decoder, row), layer=_divided(decoder, layer))


MOST_MAPS = 4
"""Edges whose maps stay on the device; a map of 16 thousand rows has some 8 MB."""

_Made = dict[tuple, Maps | None]
"""Maps that lie on the device, by what they are of: all windows of an edge share them."""


def _batch_maps(
    decoder: Decoder,
    group: Int[np.ndarray, " n"],
    tables: Bool[np.ndarray, "batch layers heads g g"],
    batch: Batch,
    made: _Made,
) -> Maps | None:
    """The maps that the batch's one window needs; None for plain attention."""
    kernel = decoder.kernel_for(len(group))
    if kernel is None or not by_kernel(batch.size, batch.rows, batch.rows + batch.prefix):
        return None
    [allowed] = tables
    layers, heads, *size = allowed.shape
    flat = allowed.reshape(layers * heads, -1)
    differing = np.unique(flat, axis=0)[::-1]  # of a knockout: what is not cut, and what is
    key = batch.first_row, batch.rows, differing.shape, differing.tobytes()
    if key not in made:
        if len(made) == MOST_MAPS:
            made.clear()
        maps = make_maps(
            group,
            differing.reshape(-1, 1, *size),
            kernel,
            decoder.config.head_dim,
            first_row=batch.first_row,
            rows=batch.rows,
            tables=FEW,
        )
        made[key] = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], maps)
    maps = made[key]
    if maps is None:
        return None
    which = (flat[:, None] == differing[None]).all(-1).argmax(1).reshape(1, layers, heads)
    return dataclasses.replace(maps, table=jnp.asarray(which, jnp.int32))


def _batch_tables(
    decoder: Decoder, layout: TokenLayout, knockouts: Sequence[Knockout | Patch], batch: Batch
) -> Bool[np.ndarray, "batch layers heads g g"]:
    """One table per window; groups and heads have few sizes, so that compiled code is shared."""
    config = decoder.config
    chosen = [
        knockout for index in batch.knockouts if not isinstance(knockout := knockouts[index], Patch)
    ]
    cells = len(layout.cells)
    padded = round_up(cells, GROUP_STEP)
    heads = 1 if all(knockout.heads is None for knockout in chosen) else config.heads
    out = np.ones((batch.size, config.layers, heads, padded, padded), bool)
    for table, knockout in zip(out, chosen, strict=False):
        table[..., :cells, :cells] = edge_table(
            layout, [knockout], layers=config.layers, heads=config.heads
        )
    return out


def _divided(decoder: Decoder, batch: Bool[np.ndarray, "batch ..."]) -> Bool[Array, "batch ..."]:
    """One entry per window, on the devices that the windows are divided over.

    Its shape there where the decoder's parameters are shapes.
    """
    mesh = mesh_of(decoder)
    if mesh is None:
        return jnp.asarray(batch)
    divided = NamedSharding(mesh, PartitionSpec(DATA))
    if isinstance(jax.tree.leaves(decoder.norm)[0], jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(batch.shape, batch.dtype, sharding=divided)  # type: ignore
    return jax.device_put(batch, divided)


def mesh_of(decoder: Decoder) -> Mesh | None:
    """The mesh that the parameters lie on; windows are divided along its axis `data`."""
    sharding = jax.tree.leaves(decoder.norm)[0].sharding
    if not isinstance(sharding, NamedSharding):
        return None
    assert isinstance(sharding.mesh, Mesh)
    return sharding.mesh
