"""Compile cheaper prefills at 7B shapes for an H100 or a TPU, without one, and record their needs.

    python -m flowjax_benchmarks.efficiency_compiled --chip v5p \\
        --json benchmarks/results/efficiency-v5p-compiled.json

LLaVA 7B in bfloat16, with the attention kernel, at about 1.3 and 16 thousand tokens. FLOPs and
cache are counted as `flowjax efficiency` counts them; temporaries are the compiler's; bytes are
read from the compiled program (`flowjax.hlo`). The modelled time is the roofline of every
instruction, and of the kernels' allowed edges at the chip's peak. `h100` needs the extra
`cuda-compile`, the others the `libtpu` wheel.
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
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from flowjax.compilation import memory_of, text_of
from flowjax.hlo.cost import program_cost
from flowjax.kernels.pruned_attention import api
from flowjax.models.cost import LayerCost
from flowjax.platforms import skip_absent_tpu
from flowjax_benchmarks.efficiency import SEVEN_B, Contender, abstract_prompt, contenders
from flowjax_benchmarks.kernel_gpu import device
from flowjax_benchmarks.kernel_tpu import TOPOLOGIES
from flowjax_benchmarks.record import record, say, write_result
from flowjax_benchmarks.sweep import SHAPES

PEAKS = {
    "h100": (989e12, 3.35e12),
    "v5e": (197e12, 0.819e12),
    "v5p": (459e12, 2.765e12),
    "v6e": (918e12, 1.64e12),
}
"""FLOPs and bytes a second: dense bfloat16 and memory, as NVIDIA and Google publish them."""
KERNEL = re.compile(r'custom_call_target="(?:tpu_custom_call|mosaic_gpu\w*)"')
SHARE = 0.5
"""Of the FLOPs of a prefill: of every method the setting nearest to it is compiled."""


def main() -> None:
    """Compile, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chip", choices=PEAKS, default="v5p")
    parser.add_argument("--frames", type=int, choices=SEVEN_B, help="this prompt only")
    parser.add_argument("--method", help="this one only")
    options = parser.parse_args()
    rows = [
        row
        for frames in SEVEN_B
        if options.frames in (None, frames)
        for row in programs(options.chip, frames, options.method)
    ]
    if options.json:
        command = ["python", "-m", "flowjax_benchmarks.efficiency_compiled"]
        command += ["--chip", options.chip, "--json", str(options.json)]
        packages = ("jax-cuda13-plugin", "nvidia-cuda-nvcc", "libtpu")
        write_result(options.json, {"compiled": rows, **record(command, packages)})


def programs(chip: str, frames: int, only: str | None) -> Iterator[dict[str, Any]]:
    """What every method's program needs on a chip."""
    sharding, platform = target(chip)

    def place(leaf: Any) -> Any:  # noqa: ANN401 - in an array's place
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    # The programs choose blocks and kernel by the backend, which here is that of the compiler.
    with (
        mock.patch.object(jax, "default_backend", return_value=platform),
        mock.patch.object(api, "absence", return_value=None),
    ):
        prompt = abstract_prompt(frames, place)
        for one in contenders(prompt, [SHARE]):
            run = one.applied.program
            # An exit's loops run as often as states say: no time can be modelled.
            if only not in (None, one.method) or one.method == "exit":
                continue
            assert isinstance(run, jax.stages.Wrapped)
            start = time.perf_counter()
            traced = run.trace(*jax.tree.map(place, one.applied.arguments))
            lowered = traced.lower(lowering_platforms=("cuda" if platform == "gpu" else platform,))
            options: Any = {"xla_gpu_autotune_level": "0"} if platform == "gpu" else None
            program = lowered.compile(compiler_options=options)
            made = row(chip, prompt.layout.length, one, program)
            made["compile_seconds"] = time.perf_counter() - start
            say(" ".join(f"{name}={value}" for name, value in made.items()))
            yield made


def target(chip: str) -> tuple[SingleDeviceSharding, str]:
    """One device of a chip, and the name of its backend."""
    if chip == "h100":
        return device(), "gpu"
    topology = topologies.get_topology_desc(topology_name=TOPOLOGIES[chip], platform="tpu")
    return SingleDeviceSharding(topology.devices[0]), "tpu"


def row(chip: str, length: int, one: Contender, program: jax.stages.Compiled) -> dict[str, Any]:
    """Counts of a setting, and what its program needs."""
    memory, cost, text = memory_of(program), one.applied.cost(), text_of(program)
    work, (flops, bandwidth) = program_cost(text), PEAKS[chip]
    attention = cost.edges * LayerCost(SHAPES["7b"].config).edge
    return {
        "chip": chip,
        "positions": length,
        "method": one.method,
        "setting": one.setting.label,
        "flops": cost.flops,
        "flops_share": one.flops,
        "kv_cache_bytes": cost.cache_bytes,
        "kv_cache_share": one.cache,
        "bytes_accessed": work.bytes,
        "modelled_seconds": work.seconds(flops, bandwidth) + attention / flops,
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "kernels": len(KERNEL.findall(text)),
    }


if __name__ == "__main__":
    skip_absent_tpu()
    main()
