"""Attention of consecutive rows by a kernel that makes no array of rows x rows.

The kernel reads block maps, which are made on the host of positions' groups and tables of edges. A
`BlockedMask` is an edge mask that carries them: one map for every table that differs, and which of
them a layer's heads have. So a knockout has two maps, whatever its layers: of what is not cut, and
of what is. Maps are padded to sizes that follow from the rows alone, so that all that is cut in as
many rows shares compiled code.
"""

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.kernels.pruned_attention import BlockMap, Implementation, block_map, suited_shape
from flowjax.kernels.pruned_attention.api import BEST, MODULES, absence, misfit
from flowjax.kernels.pruned_attention.blocks import padded_map
from flowjax.masks import NOBODY, EdgeMask, Mask
from flowjax.models.attention import CHUNK, Sources, attend_causal, attend_chunks

FEW = 2
"""Tables whose partial visits are padded to the most there can be; of more, to a power of two."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Maps:
    """Block maps of consecutive rows over all positions from 0 on.

    blocks: with one table for each that differs.
    table: int32 [layers, heads or 1], which of them a head has; `at` takes the layer axis away.
    kernel: the implementation that they are for.
    """

    blocks: BlockMap
    table: Int[Array | np.ndarray, "*layers heads"]
    kernel: Implementation = field(metadata={"static": True})

    def at(self, layer: int | Int[Array, ""]) -> "Maps":
        """The maps of one layer."""
        return dataclasses.replace(self, table=jnp.asarray(self.table)[layer])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class BlockedMask:
    """An edge mask, and block maps that say the same of some rows."""

    mask: EdgeMask
    maps: Maps

    @property
    def allowed(self) -> Bool[Array, "*axes g g"]:
        """The mask's table."""
        return self.mask.allowed

    def at(self, layer: int | Int[Array, ""]) -> "BlockedMask":
        """The mask of one layer."""
        return BlockedMask(self.mask.at(layer), self.maps.at(layer))

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Bool[Array, "heads q k"]:
        """Allowed edges into `targets` from `sources`; see `EdgeMask.rows`."""
        return self.mask.rows(targets, sources)


def kernel_here(head_dim: int, dtype: jax.typing.DTypeLike) -> Implementation | None:
    """The kernel for a decoder on this machine's accelerator; None for plain attention.

    float32 stays with plain attention, which is exact to float32 rounding.
    """
    kernel = BEST.get(jax.default_backend())
    if kernel is None or jnp.dtype(dtype) != jnp.bfloat16 or absence(kernel):
        return None
    return kernel if head_dim <= MODULES[kernel].MOST_WIDTH else None


def make_maps(
    group: Int[np.ndarray, " n"],
    allowed: Bool[np.ndarray, "layers heads g g"],
    kernel: Implementation,
    head_dim: int,
    *,
    first_row: int = 0,
    rows: int | None = None,
    tables: int = 1,
) -> Maps | None:
    """Block maps of a mask, as numpy arrays; None if the kernel cannot serve them.

    Args:
        group, allowed: as in `EdgeMask`.
        kernel: the implementation that they are for.
        head_dim: of the decoder.
        first_row, rows: consecutive rows that attend; None for all from `first_row` on.
        tables: pad to at least so many.
    """
    layers, heads, *size = allowed.shape
    length = len(group)
    rows = length - first_row if rows is None else rows
    position = np.arange(length, dtype=np.int32)
    targets = position[first_row : first_row + rows]
    # What suits layers where nothing is cut: nearly all that take long.
    nothing_cut = np.ones((1, 1, 1), bool)
    block_q, block_k = suited_shape(0 * group, nothing_cut, targets, position, head_dim, kernel)
    blocks = block_map(
        group,
        allowed.reshape(layers * heads, *size),
        targets,
        position,
        block_q=block_q,
        block_k=block_k,
    )
    # As many visits as rows at the end of the positions make with nothing cut.
    ends = length - rows + np.minimum(np.arange(block_q, rows + block_q, block_q), rows)
    most = int((-(-ends // block_k)).sum())
    table = blocks.table_of_head.reshape(layers, heads)
    partials = most
    if max(tables, len(blocks.visits)) > FEW:
        partials = 1 << (blocks.row_words.shape[1] - 1).bit_length()
    blocks = padded_map(blocks, tables=tables, visits=most, partials=partials)
    query = jnp.zeros((1, 1, head_dim), jnp.bfloat16)
    if misfit(kernel, query, query, blocks) is not None:
        return None
    return Maps(dataclasses.replace(blocks, table_of_head=table[0]), table, kernel)


def blocked(mask: EdgeMask, kernel: Implementation, head_dim: int) -> Mask:
    """A whole prompt's mask with its block maps where the kernel can serve them, else as it is."""
    allowed = np.asarray(mask.allowed)
    differing = len(np.unique(allowed.reshape(-1, allowed[0, 0].size), axis=0))
    few = 1 << (differing - 1).bit_length()
    maps = make_maps(np.asarray(mask.group), allowed, kernel, head_dim, tables=few)
    return mask if maps is None else BlockedMask(mask, jax.tree.map(jnp.asarray, maps))


def attend_rows(
    query: Float[Array, "q heads d"],
    own: Sources,
    mask: Mask,
    *,
    kept: Sources | None = None,
    prefix: int = 0,
    chunk: int = CHUNK,
    window: int | None = None,
) -> Float[Array, "q heads d"]:
    """Attention of consecutive rows over kept rows before them and themselves.

    By the mask's kernel if it has block maps of these rows; plain attention otherwise
    (`attend_causal`).

    Args:
        query: rows with ascending positions `own.position`.
        own: keys and values of the same rows.
        mask: one layer's mask.
        kept: keys and values of all positions, of which those before the rows are read.
        prefix: no more than so many of them come before the rows.
        chunk, window: of plain attention; see `attend_causal`.
    """
    if isinstance(mask, BlockedMask):
        sources = own if kept is None else _joined(kept, own)
        leaves, structure = jax.tree.flatten(mask)
        return _flash(structure, query, *sources[:2], own.position, sources.position, leaves)
    cached = []
    if kept is not None and prefix:
        before = kept.position[:prefix]
        position = jnp.where(before < own.position[0], before, NOBODY)
        cached = [Sources(kept.key[:prefix], kept.value[:prefix], position)]
    return attend_causal(query, own, cached, mask, chunk, window)


def _joined(kept: Sources, own: Sources) -> Sources:
    """The keys and values of all positions, the rows' own in their places."""
    first = own.position[0]

    def put(kept: Array, own: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(kept, own, first, 0)

    return Sources(put(kept.key, own.key), put(kept.value, own.value), kept.position)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(
    structure: Any,  # noqa: ANN401 - JAX has no public type for it
    query: Float[Array, "q heads d"],
    key: Float[Array, "k kv_heads d"],
    value: Float[Array, "k kv_heads d"],
    position: Int[Array, " q"],
    key_position: Int[Array, " k"],
    leaves: list[Array],
) -> Float[Array, "q heads d"]:
    """By the kernel; `leaves` are those of a `BlockedMask` of this structure."""
    maps = cast(BlockedMask, structure.unflatten(leaves)).maps
    blocks = dataclasses.replace(maps.blocks, table_of_head=maps.table)
    one = MODULES[maps.kernel].attention
    if maps.kernel != "mosaic_gpu":  # which does so itself
        # A kernel has no rule for batches of maps: windows and samples go one after the other.
        one = jax.custom_batching.sequential_vmap(one)
    return one(query, key, value, position, key_position, jax.tree.map(jnp.asarray, blocks))


def _flash_forward(
    structure: Any,  # noqa: ANN401 - as above
    *arguments: Array | list[Array],
) -> tuple[Array, tuple]:
    return _flash(structure, *arguments), arguments


def _flash_backward(
    structure: Any,  # noqa: ANN401 - as above
    arguments: tuple,
    gradient: Array,
) -> tuple[Array | None, ...]:
    """By plain attention, some rows at a time."""
    query, key, value, position, key_position, leaves = arguments
    mask = cast(BlockedMask, structure.unflatten(leaves)).mask

    def plain(query: Array, key: Array, value: Array) -> Array:
        blocks = [Sources(key, value, key_position)]
        return attend_chunks(query, position, blocks, mask, remat=True)

    _, pull = jax.vjp(plain, query, key, value)
    return *pull(gradient), None, None, None


_flash.defvjp(_flash_forward, _flash_backward)
