"""A warpgroup's instructions that are written differently for a GPU and for its simulator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.mosaic import gpu as mgpu
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import llvm, memref
from jaxtyping import Array

Ref = Any
Layout = Any
"""Pallas' references and register layouts: it has no public types for them."""


@dataclass(frozen=True)
class Machine:
    """The instructions that JAX's simulator of GPUs lacks, and what they mean.

    It has no layouts, no transposed operands, no operands in registers, and no copies that end
    where an array does; all else (threads, copies, barriers, memory) runs as it is.
    """

    simulated: bool

    def place(self, value: Array, layout: Layout) -> Array:
        """The value in a layout."""
        return value if self.simulated else plgpu.layout_cast(value, layout)

    def read(self, ref: Ref, index: tuple[Any, ...], layout: Layout) -> Array:
        """A vector from global or shared memory, in a layout."""
        if self.simulated:
            return ref[index]
        return plgpu.load(ref, index, layout=layout, optimized=False)

    def scores(self, query: Ref, key: Ref, issued: Callable[[], None]) -> Array:
        """query [m, d] times key [n, d] transposed; calls `issued` before it waits."""
        if self.simulated:
            product = _float32_dot(query[...], key[...], 1)
            issued()
            return product

        def multiply(accumulator: Ref) -> Array:
            plgpu.wgmma(accumulator, query, plgpu.transpose_ref(key, (1, 0)))
            issued()
            return accumulator[...]

        shape = query.shape[0], key.shape[0]
        return pl.run_scoped(multiply, plgpu.WGMMAAccumulatorRef(shape, jnp.float32))

    def add_product(self, total: Array, weights: Array, value: Ref) -> Array:
        """total [m, d] plus weights [m, n] times value [n, d]."""
        if self.simulated:
            return total + _float32_dot(weights, value[...], 0)

        def multiply(accumulator: Ref) -> None:
            plgpu.wgmma(accumulator, weights, value)

        return cast(Array, pl.run_state(multiply)(plgpu.WGMMAAccumulatorRef.init(total)))

    def fetch_add(self, counter: Ref, cell: Ref) -> Array:
        """Add 1 to counter [1] in global memory, for the warpgroup and against all other thread
        blocks; what it was before, by way of `cell` [1] in shared memory. Not simulated.
        """

        def add(_context: object, counter: ir.Value, cell: ir.Value) -> None:
            int32 = ir.IntegerType.get_signless(32)
            mgpu.warpgroup_barrier()
            with mgpu.single_thread(scope=mgpu.ThreadSubset.WARPGROUP):
                before: Any = llvm.inline_asm(
                    int32,
                    [mgpu.utils.memref_ptr(counter), mgpu.c(1, int32)],
                    "atom.global.add.u32 $0, [$1], $2;",
                    "=r,l,r",
                    has_side_effects=True,
                )
                memref.store(before, cell, [mgpu.c(0, ir.IndexType.get())])
            mgpu.warpgroup_barrier()

        inlined: Any = plgpu.inline_mgpu(arg_types=(plgpu.RefType(), plgpu.RefType()))(add)
        inlined(counter, cell)
        return cell[0]


def _float32_dot(left: Array, right: Array, contracted: int) -> Array:
    return jax.lax.dot_general(
        left, right, (((1,), (contracted,)), ((), ())), preferred_element_type=jnp.float32
    )
