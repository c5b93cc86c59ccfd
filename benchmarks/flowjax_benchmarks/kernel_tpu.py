"""Compile the TPU kernel with the real compiler, without a TPU, and record what it needs.

    python -m flowjax_benchmarks.kernel_tpu --json benchmarks/results/kernel-tpu-compiled.json

Needs the `libtpu` wheel. Shapes are those of a 7B model: 32 heads, 128 wide.
"""

import os

# Before JAX: libtpu looks for a TPU's metadata and takes a lock unless told otherwise.
os.environ.update(
    JAX_PLATFORMS="cpu",
    TPU_ACCELERATOR_TYPE="v5litepod-4",
    TPU_WORKER_HOSTNAMES="localhost",
    TPU_SKIP_MDS_QUERY="1",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
)

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from jax.stages import Compiled
from jax.typing import DTypeLike

from flowjax.compilation import memory_of
from flowjax.kernels.pruned_attention import BlockMap, block_map, mosaic_tpu, suited_shape
from flowjax.platforms import skip_absent_tpu
from flowjax_benchmarks.kernel_layers import layer_kinds
from flowjax_benchmarks.record import record, say, write_result
from flowjax_benchmarks.sweep import prompt_layout

TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
LENGTHS = {1280: 8, 16_384: 112}
"""Positions, and the frames among them."""
HEADS, WIDTH = 32, 128
Cut = Literal["first layer", "half of its heads", "nothing"]
"""Where the pathway's first layer cuts edges; or an uncut one."""


def map_of(positions: int, frames: int, cut: Cut) -> BlockMap:
    """A layer's map, in the blocks that suit it."""
    cell = prompt_layout(frames, 144).cell
    cell = np.append(cell, np.full(positions - len(cell), cell[-1], np.int32))
    _, table = layer_kinds(prompt_layout(frames, 144))[0]
    if cut == "half of its heads":
        table = np.repeat(table, HEADS, axis=0)
        table[::2] = True
    if cut == "nothing":
        table = np.ones_like(table)
    position = np.arange(positions, dtype=np.int32)
    layer = cell, table, position, position
    block_q, block_k = suited_shape(*layer, WIDTH, "mosaic_tpu")
    return block_map(*layer, block_q=block_q, block_k=block_k)


def compiled(
    topology: str, positions: int, dtype: str, kv_heads: int, blocks: BlockMap, width: int = WIDTH
) -> Compiled:
    """The kernel compiled for one device of a topology."""
    device = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices[0]
    on_device = SingleDeviceSharding(device)

    def array(shape: Sequence[int], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=on_device)

    rows = [array((positions, heads, width), dtype) for heads in (HEADS, kv_heads, kv_heads)]
    position = array((positions,), np.int32)
    specs = jax.tree.map(lambda leaf: array(leaf.shape, leaf.dtype), blocks)
    traced = mosaic_tpu.attention.trace(*rows, position, position, specs)
    return traced.lower(lowering_platforms=("tpu",)).compile()


def row(
    chip: str, positions: int, dtype: str, kv_heads: int, cut: Cut, width: int = WIDTH
) -> dict[str, Any]:
    """Compile one shape; bytes and FLOPs as the compiler counts them."""
    blocks = map_of(positions, LENGTHS[positions], cut)
    start = time.perf_counter()
    program = compiled(TOPOLOGIES[chip], positions, dtype, kv_heads, blocks, width)
    seconds = time.perf_counter() - start
    memory, cost, text = memory_of(program), program.cost_analysis(), program.as_text()
    assert cost is not None and text is not None
    say(f"{chip} {positions} {dtype}: compiled in {seconds:.1f} s")
    return {
        "chip": chip,
        "positions": positions,
        "dtype": dtype,
        "kv_heads": kv_heads,
        "width": width,
        "cut": cut,
        "block_shape": [blocks.block_q, blocks.block_k],
        "tables": blocks.visits.shape[0],
        "kept_blocks": blocks.kept_blocks,
        "causal_blocks": blocks.causal_blocks,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
    }


def main() -> None:
    """Compile every shape for every chip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--chip", choices=TOPOLOGIES, help="this one only")
    asked = parser.parse_args()
    path, chips = asked.json, [asked.chip] if asked.chip else [*TOPOLOGIES]
    rows = []
    for chip in chips:
        rows += [row(chip, positions, "bfloat16", HEADS, "first layer") for positions in LENGTHS]
        rows.append(row(chip, 16_384, "bfloat16", HEADS, "nothing"))
        rows.append(row(chip, 16_384, "float32", 8, "nothing", mosaic_tpu.MOST_WIDTH))
    rows.append(row(chips[0], 1280, "float32", 8, "half of its heads"))
    write_result(
        path,
        {
            "compiled": rows,
            **record(
                ["python", "-m", "flowjax_benchmarks.kernel_tpu", "--json", str(path)], ("libtpu",)
            ),
        },
    )


if __name__ == "__main__":
    skip_absent_tpu()
    main()
