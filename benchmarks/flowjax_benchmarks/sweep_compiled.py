"""Compile a sweep's programs for an H100, without a GPU, and record the memory that they take.

    python -m flowjax_benchmarks.sweep_compiled --json benchmarks/results/sweep-h100-compiled.json

LLaVA 7B and Qwen2.5-VL 7B in bfloat16, with the attention kernel and without, the paper's edges.
`allotted` is what the compiler gives a program beside its arguments: temporaries, and of windows
their logits; `estimate` is the planner's (`flowjax.sweeps.cost`). Needs the extra `cuda-compile`.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX, which reads it once

import jax
import jax.numpy as jnp
from flax import nnx

from flowjax.compilation import memory_of
from flowjax.edges import Knockout
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.sweeps import engine
from flowjax.sweeps.cost import Cost
from flowjax.sweeps.plan import footprint, plan_sweep
from flowjax.sweeps.protocol import protocol
from flowjax_benchmarks.kernel_gpu import array, device
from flowjax_benchmarks.record import record, say, write_result
from flowjax_benchmarks.sweep import prompt_layout
from flowjax_benchmarks.sweep_attention import SHAPES, TOKENS_PER_FRAME

PROMPTS = {"llava-7b": (8, 28), "qwen2.5-vl-7b": (8, 28, 113, 226)}
"""Frames of each shape's prompts."""


def main() -> None:
    """Compile, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shape", choices=PROMPTS)
    parser.add_argument("--frames", type=int)
    options = parser.parse_args()
    rows = [
        row
        for shape, prompts in PROMPTS.items()
        if options.shape in (None, shape)
        for frames in prompts
        if options.frames in (None, frames)
        for kernel in (False, True)
        for row in programs(shape, frames, kernel)
    ]
    if options.json:
        command = ["python", "-m", "flowjax_benchmarks.sweep_compiled", "--json", str(options.json)]
        packages = ("jax-cuda13-plugin", "nvidia-cuda-nvcc")
        write_result(options.json, {"compiled": rows, **record(command, packages)})


def programs(shape: str, frames: int, kernel: bool) -> list[dict[str, Any]]:
    """What every program of a sweep takes."""
    config, layout = SHAPES[shape], prompt_layout(frames, TOKENS_PER_FRAME)
    cells = protocol(width=9).cells(layout, config.layers, config.heads)
    cuts = [cell.knockout for cell in cells if isinstance(cell.knockout, Knockout)]
    footprints = [footprint(layout, cut) for cut in cuts]
    plan = plan_sweep(layout.length, footprints, config, value_bytes=2, kernel=kernel)
    decoder = nnx.eval_shape(lambda: Decoder(config, jnp.dtype("bfloat16"), nnx.Rngs(0)))
    decoder = jax.tree.map(place, decoder)
    decoder.kernel = "mosaic_gpu" if kernel else None
    prompt = Embedded(
        array((plan.length, config.width), jnp.bfloat16),
        array((1, plan.length), jnp.int32),
        None,
        array((), jnp.int32),
    )
    cost, rows = Cost(config, 2, kernel), []
    for batch, lowered in engine.lower_plan(decoder, prompt, layout, cuts, plan, place):
        start = time.perf_counter()
        options: Any = {"xla_gpu_autotune_level": "0"}  # there is nothing to try them on
        memory = memory_of(lowered.compile(compiler_options=options))
        allotted, estimate = memory.temp_size_in_bytes, cost.prefill_bytes(plan.length)
        if batch is not None:
            allotted += memory.output_size_in_bytes
            estimate = cost.batch_bytes(*batch.shape)
        rows.append(
            {
                "shape": shape,
                "positions": plan.length,
                "kernel": kernel,
                "program": "prefill" if batch is None else list(batch.shape),
                "temporary_bytes": memory.temp_size_in_bytes,
                "allotted_bytes": allotted,
                "estimate_bytes": estimate,
                "estimate_over_allotted": estimate / allotted,
                "kept_bytes": cost.kept_bytes(plan.length),
                "compile_seconds": time.perf_counter() - start,
            }
        )
        say(" ".join(f"{name}={value}" for name, value in rows[-1].items()))
    return rows


def place(leaf: Any) -> jax.ShapeDtypeStruct:  # noqa: ANN401 - an array of any library, or a shape
    """The same array on the H100."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device())


if __name__ == "__main__":
    main()
