"""One entry point for every implementation of pruned attention."""

import functools
from typing import Literal, NoReturn

import jax
from jaxtyping import Array, Float, Int

from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention import assembler, mosaic_gpu, mosaic_tpu, xla
from flowjax.kernels.pruned_attention.blocks import BlockMap

Implementation = Literal["xla", "mosaic_tpu", "mosaic_gpu"]

MODULES = {"xla": xla, "mosaic_tpu": mosaic_tpu, "mosaic_gpu": mosaic_gpu}

BEST: dict[str, Implementation] = {"gpu": "mosaic_gpu", "tpu": "mosaic_tpu"}
"""The implementation for each platform that has one of its own."""


def block_shape(width: int, implementation: Implementation | None = None) -> tuple[int, int]:
    """Good rows of a block, (`block_q`, `block_k`); see docs/kernel.md.

    Args:
        width: head size.
        implementation: None for what `pruned_attention` takes on this machine.
    """
    implementation = implementation or BEST.get(jax.default_backend(), "xla")
    if implementation == "mosaic_tpu":
        return 256, 512
    if implementation == "mosaic_gpu" and width > 128:
        return 128, 64
    return 128, 128


def refusal(
    implementation: Implementation,
    query: Float[Array, "q heads d"],
    key: Float[Array, "k kv_heads d"],
    blocks: BlockMap,
) -> str | None:
    """Why an implementation cannot serve these arrays on this machine; None if it can."""
    return absence(implementation) or misfit(implementation, query, key, blocks)


def absence(implementation: Implementation) -> str | None:
    """Why an implementation cannot serve on this machine; None if it can."""
    if implementation == "xla":
        return None
    platform = jax.default_backend()
    if BEST.get(platform) != implementation:
        return f"it needs a {implementation.removeprefix('mosaic_').upper()}; this is a {platform}"
    capability = getattr(jax.devices()[0], "compute_capability", "unknown")
    if implementation == "mosaic_gpu" and capability != "9.0":
        return f"it needs compute capability 9.0 (H100, H200); this GPU has {capability}"
    return assembler.refusal() if implementation == "mosaic_gpu" else None


def misfit(
    implementation: Implementation,
    query: Float[Array, "q heads d"],
    key: Float[Array, "k kv_heads d"],
    blocks: BlockMap,
) -> str | None:
    """Why an implementation cannot serve these arrays anywhere; None if it can."""
    match implementation:
        case "xla":
            return None
        case "mosaic_tpu":
            return mosaic_tpu.refusal(query, key, blocks)
        case "mosaic_gpu":
            return mosaic_gpu.refusal(query, key, blocks)


def pruned_attention(
    query: Float[Array, "q heads d"],
    key: Float[Array, "k kv_heads d"],
    value: Float[Array, "k kv_heads d"],
    *,
    query_position: Int[Array, " q"],
    key_position: Int[Array, " k"],
    blocks: BlockMap,
    implementation: Implementation | None = None,
) -> Float[Array, "q heads d"]:
    """Softmax attention over the edges of a block map, scaled by `1 / sqrt(d)`; softmax in float32.

    Equal to `flowjax.models.attention.attend` with the mask that the map was made of: causal by
    position, query head h reads key head `h // (heads // kv_heads)`, a row without any allowed
    source gives zeros.

    Args:
        query: rows of any number, at ascending positions; they need not be consecutive.
        key, value: the source rows.
        query_position, key_position: absolute.
        blocks: the map that `block_map` makes of one layer's mask and these positions.
        implementation: None takes `mosaic_gpu` on a GPU and `mosaic_tpu` on a TPU if it can serve,
            otherwise `xla`.

    Returns:
        The attended values, in the query's dtype.

    Raises:
        FlowjaxError: the implementation asked for cannot serve, the map is of other rows, or
            derivatives are asked for, of which there are none.
    """
    _check(query, key, blocks)
    if implementation is None:
        implementation = BEST.get(jax.default_backend(), "xla")
        if refusal(implementation, query, key, blocks) is not None:
            implementation = "xla"
    elif reason := refusal(implementation, query, key, blocks):
        raise FlowjaxError(f"pruned attention {implementation!r} cannot serve: {reason}")
    return _attend(implementation, query, key, value, query_position, key_position, blocks)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attend(
    implementation: Implementation,
    query: Float[Array, "q heads d"],
    key: Float[Array, "k kv_heads d"],
    value: Float[Array, "k kv_heads d"],
    query_position: Int[Array, " q"],
    key_position: Int[Array, " k"],
    blocks: BlockMap,
) -> Float[Array, "q heads d"]:
    attention = MODULES[implementation].attention
    return attention(query, key, value, query_position, key_position, blocks)


@_attend.defjvp
def _refuse_derivatives(
    implementation: Implementation, _primals: tuple, _tangents: tuple
) -> NoReturn:
    raise FlowjaxError(
        f"pruned attention {implementation!r} has no derivatives: differentiate a `Decoder`, whose "
        "attention has them, or `flowjax.models.attention.attend`"
    )


def _check(
    query: Float[Array, "q heads d"],
    key: Float[Array, "k kv_heads d"],
    blocks: BlockMap,
) -> None:
    heads, kv_heads = query.shape[1], key.shape[1]
    if (blocks.queries, blocks.keys) != (len(query), len(key)):
        raise FlowjaxError(
            f"block map of {blocks.queries} query rows and {blocks.keys} key rows: attention has "
            f"{len(query)} and {len(key)}; build it with the same positions"
        )
    if heads % kv_heads:
        raise FlowjaxError(f"{heads} query heads are no multiple of {kv_heads} key heads")
    if (tables := len(blocks.table_of_head)) not in (1, heads):
        raise FlowjaxError(f"block map of {tables} heads: give 1 or {heads}")
