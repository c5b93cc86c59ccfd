"""Compile the GPU kernel to an H100's machine code, without a GPU, and record what that says.

    python -m flowjax_benchmarks.kernel_gpu --json benchmarks/results/kernel-h100-compiled.json

Needs the extra `cuda-compile`: JAX's CUDA plugin, `ptxas` and `nvdisasm`. Which `ptxas` ran is in
the record; it is the first in PATH, if there is one. JAX's own attention is compiled beside.
"""

import os
import tempfile

# Before JAX, which reads them once.
os.environ.update(
    JAX_PLATFORMS="cpu", MOSAIC_GPU_DUMP_TO=tempfile.mkdtemp(prefix="flowjax-machine-code-")
)

import argparse
import functools
import importlib.util
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.experimental.pallas.ops.gpu import attention_mgpu
from jax.sharding import SingleDeviceSharding
from jax.typing import DTypeLike

from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention import (
    BlockMap,
    assembler,
    block_map,
    block_shape,
    mosaic_gpu,
)
from flowjax.planning.targets import H100
from flowjax_benchmarks.kernel_layers import layer_kinds
from flowjax_benchmarks.record import record, say, write_result
from flowjax_benchmarks.sass import WGMMA, Listing, Loop
from flowjax_benchmarks.sweep import prompt_layout

LOOPS = {1: ("full",), 2: ("full", "partial"), 3: ("full", "below the diagonal", "partial")}
"""Names of a kernel's loops over key blocks, in the order of their code."""


@dataclass(frozen=True)
class Shape:
    """Attention to compile: the strict 7B pathway's first layer.

    tables: 1, or one per head. many: so many groups that a key block needs four words of classes.
    """

    heads: int
    kv_heads: int
    width: int
    frames: int
    tables: int = 1
    many: bool = False


SHAPES = {
    "7b, 1,272 tokens": Shape(32, 32, 128, 8),
    "7b, 16,392 tokens": Shape(32, 32, 128, 113),
    "grouped heads": Shape(28, 4, 128, 32),
    "a table for each head": Shape(32, 32, 128, 8, tables=32),
    "four words": Shape(32, 32, 128, 8, many=True),
    "64 wide": Shape(32, 32, 64, 8),
    "96 wide": Shape(32, 32, 96, 8),
    "256 wide": Shape(16, 8, 256, 8),
}


def map_of(shape: Shape) -> BlockMap:
    """The map of the pathway's first layer."""
    layout = prompt_layout(shape.frames, 144)
    cell = layout.cell
    _, table = layer_kinds(layout)[0]
    if shape.many:
        cell = np.arange(layout.length, dtype=np.int32) % 128
        table = np.random.default_rng(0).random((1, 128, 128)) < 0.5
    if shape.tables > 1:
        table = np.repeat(table, shape.tables, axis=0)
        table[::2] = True
    position = np.arange(layout.length, dtype=np.int32)
    block_q, block_k = block_shape(shape.width, "mosaic_gpu")
    return block_map(cell, table, position, position, block_q=block_q, block_k=block_k)


@functools.cache
def device() -> SingleDeviceSharding:
    """An H100 that is not here."""
    described = topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1")
    return SingleDeviceSharding(described.devices[0])


def array(shape: tuple[int, ...], dtype: DTypeLike) -> Any:  # noqa: ANN401 - stands for an array
    """Of the H100's."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=device())


def own(shape: Shape) -> tuple[Any, tuple, int]:
    """Our kernel, its arguments, and its output's bytes."""
    blocks = jax.tree.map(lambda leaf: array(leaf.shape, leaf.dtype), map_of(shape))
    query = array((blocks.queries, shape.heads, shape.width), "bfloat16")
    key = array((blocks.keys, shape.kv_heads, shape.width), "bfloat16")
    position = array((blocks.queries,), np.int32)
    reason = mosaic_gpu.refusal(query, key, blocks)
    assert reason is None, reason
    return mosaic_gpu.attention, (query, key, key, position, position, blocks), query.size * 2


def jaxs(causal: bool) -> tuple[Any, tuple, int]:
    """JAX's own kernel at the 7B shape, with blocks of ours; it takes float16 alone."""
    config = attention_mgpu.TuningConfig(
        block_q=64, block_kv=128, max_concurrent_steps=2, causal=causal
    )
    query = array((1, 16_384, 32, 128), "float16")
    call = jax.jit(functools.partial(attention_mgpu.attention, config=config))
    return call, (query, query, query), query.size * 2


def row(name: str, made: tuple[Any, tuple, int], said: Mapping[str, int | bool]) -> dict[str, Any]:
    """Compile one program with one kernel, and read what came of it.

    said: fields of the row beside.
    """
    function, arguments, output = made
    folder = Path(os.environ["MOSAIC_GPU_DUMP_TO"])
    for old in folder.iterdir():
        old.unlink()
    start = time.perf_counter()
    program = function.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    dumped = {path.suffix: path.read_text(errors="replace") for path in folder.iterdir()}
    memory = program.memory_analysis()
    assert memory is not None
    say(f"{name}: compiled in {seconds:.1f} s")
    return {
        "name": name,
        **said,
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": output,
        **resources(dumped),
        **code(dumped),
    }


def resources(dumped: dict[str, str]) -> dict[str, Any]:
    """What the assembler says of registers and memory."""
    said, ptx = dumped[".ptxas"], dumped[".ptx"]

    def number(pattern: str, text: str = said) -> int:
        found = re.search(pattern, text)
        assert found, f"no {pattern!r} in {text[-2000:]}"
        return int(found[1])

    shared = [
        int(each) for each in re.findall(r"dynamic_shared_memory_size %c(\d+)_i32", dumped[".log"])
    ]
    return {
        "target": re.findall(r"\.target (\w+)", ptx)[0],
        "registers_at_launch": number(r"Used (\d+) registers"),
        "registers": sorted(int(each) for each in re.findall(r"setmaxnreg\.\w+\S*\s+(\d+)", ptx)),
        "spilled_bytes": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        "stack_bytes": number(r"(\d+) bytes stack frame"),
        "shared_bytes": max(shared),
        "warnings": re.findall(r"^.*(?:warning|Potential Performance|serializ).*$", said, re.M),
        "wgmma_asked": len(re.findall(r"wgmma\.mma_async", ptx)),
    }


def code(dumped: dict[str, str]) -> dict[str, Any]:
    """What the machine code says: instructions of a visit, by the kind of its key block."""
    listing = Listing.parse(dumped.get(".sass_ctrl") or dumped[".sass"])
    loops = listing.loops()
    names = LOOPS.get(len(loops), tuple(map(str, range(len(loops)))))
    return {
        "instructions": len(listing.code),
        "wgmma": listing.count(WGMMA),
        "local_memory": listing.count("LDL") + listing.count("STL"),
        "stray_descriptors": listing.stray_descriptors(),
        "visits": {name: visit(listing, loop) for name, loop in zip(names, loops, strict=True)},
    }


def visit(listing: Listing, loop: Loop) -> dict[str, int]:
    """Instructions of one visit in one warp. Two waits mean that no wgmma is serialised."""
    return {
        "instructions": loop.last - loop.first + 1,
        "wgmma": listing.count(WGMMA, loop),
        "waits": listing.count("WARPGROUP.DEPBAR", loop),
        "exponentials": listing.count("MUFU.EX2", loop),
        "shared_loads": listing.count("LDS", loop),
        "local_memory": listing.count("LDL", loop) + listing.count("STL", loop),
    }


def use_wheels() -> None:
    """Let `nvdisasm`, without which no machine code is dumped, be found in its wheel."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        wheel = Path(folder) / "cu13" / "bin"
        if (wheel / "nvdisasm").exists() and not shutil.which("nvdisasm"):
            os.environ["PATH"] = f"{os.environ['PATH']}{os.pathsep}{wheel}"
    if not shutil.which("nvdisasm"):
        raise FlowjaxError("nvdisasm is not here: install flowjax-videollm[cuda-compile]")


def main() -> None:
    """Compile every shape, and JAX's own attention."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, help="this one only")
    asked = parser.parse_args()
    use_wheels()
    path = assembler.find()
    release = path and assembler.version(path)
    names = [asked.shape] if asked.shape else [*SHAPES]
    rows = [row(name, own(SHAPES[name]), vars(SHAPES[name])) for name in names]
    jax_rows = (
        [] if asked.shape else [row(f"causal {each}", jaxs(each), {}) for each in (True, False)]
    )
    write_result(
        asked.json,
        {
            "ptxas": {
                "path": path and path.name,
                "release": release and ".".join(map(str, release)),
            },
            "compiled": rows,
            "jaxs_own": jax_rows,
            **record(
                ["python", "-m", "flowjax_benchmarks.kernel_gpu", "--json", str(asked.json)],
                ("jax-cuda13-plugin", "nvidia-cuda-nvcc", "nvidia-cuda-nvdisasm"),
            ),
        },
    )


if __name__ == "__main__":
    try:
        main()
    finally:
        shutil.rmtree(os.environ["MOSAIC_GPU_DUMP_TO"])
