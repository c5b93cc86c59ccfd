"""Compile a sweep's programs for an H100 or a TPU, without one, and record what they take and do.

    python -m flowjax_benchmarks.sweep_compiled --json benchmarks/results/sweep-h100-compiled.json
    python -m flowjax_benchmarks.sweep_compiled --chip v5p \\
        --json benchmarks/results/sweep-v5p-compiled.json

LLaVA 7B and Qwen2.5-VL 7B in bfloat16, with the attention kernel and without, the paper's edges.
`tests/sweeps/test_working.py` compares the planner's estimates with the memory that the compiler
allots. FLOPs and bytes are those of `flowjax.hlo`; the time is a model:

    sum over instructions of max(FLOPs / (0.6 x peak), bytes / (0.9 x bandwidth))

0.6 of the peak is what dense attention reaches on an H100 at 16,392 tokens (0.58,
`kernel-h100.json`); of TPUs nothing was measured. A prompt that is asked for alone replaces its
rows in the file. `h100` needs the extra `cuda-compile`, the others the `libtpu` wheel.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX, which reads it once

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import SingleDeviceSharding
from jax.stages import Lowered

from flowjax.compilation import text_of
from flowjax.edges import Knockout, edge_table
from flowjax.hlo.cost import ProgramCost, program_cost
from flowjax.hlo.text import Instruction
from flowjax.layout import TokenLayout
from flowjax.models.decoder import Decoder, DecoderConfig
from flowjax.models.embedded import Embedded
from flowjax.models.flash import make_maps
from flowjax.planning.compiled import KERNELS, memory
from flowjax.planning.hardware import CHIPS, Chip, Slice
from flowjax.planning.targets import described
from flowjax.sweeps import engine
from flowjax.sweeps.cost import Cost, by_kernel
from flowjax.sweeps.plan import Batch, Plan, footprint, plan_sweep
from flowjax.sweeps.protocol import protocol
from flowjax_benchmarks.kernel_bound import REACHED
from flowjax_benchmarks.record import record, say, write_result
from flowjax_benchmarks.sweep import prompt_layout
from flowjax_benchmarks.sweep_attention import SHAPES, TOKENS_PER_FRAME

PROMPTS = {"llava-7b": (8,), "qwen2.5-vl-7b": (28, 113, 226)}
"""Frames of each shape's prompts."""
SLICES = {"h100": "h100x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
"""Of which one device is compiled for."""
PACKAGES = {"cuda": ("jax-cuda13-plugin", "nvidia-cuda-nvcc"), "tpu": ("libtpu",)}
COMPUTING = 0.6
"""The part of the matrix units' peak that large products reach."""
WINDOW = 9


def main() -> None:
    """Compile, print, and write the result after every prompt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--chip", choices=SLICES, default="h100")
    parser.add_argument("--shape", choices=PROMPTS)
    parser.add_argument("--frames", type=int)
    asked = parser.parse_args()
    old = json.loads(asked.json.read_text())["prompts"] if asked.json.exists() else []
    prompts = {(each["shape"], each["frames"]): each for each in old}
    command = ["python", "-m", "flowjax_benchmarks.sweep_compiled", "--chip", asked.chip]
    command += ["--json", str(asked.json)]
    chip = CHIPS[asked.chip]
    made = {"chip": chip.name, **record(command, PACKAGES[chip.platform])}
    for shape, frames in PROMPTS.items():
        for count in frames:
            if asked.shape in (None, shape) and asked.frames in (None, count):
                prompts[shape, count] = prompt(chip, shape, count)
                ordered = sorted(prompts.values(), key=lambda each: each["positions"])
                write_result(asked.json, {"prompts": ordered, **made})


def prompt(chip: Chip, shape: str, frames: int) -> dict[str, Any]:
    """Both sweeps of one prompt."""
    sweeps = {
        "plain": Sweep(chip, shape, frames, kernel=False),
        "kernel": Sweep(chip, shape, frames, kernel=True),
    }
    # Windows of few rows attend plainly in both: their programs are the same.
    compiled: dict[Any, dict[str, Any]] = {}
    found = {name: sweep.measure(compiled) for name, sweep in sweeps.items()}
    plain, kernel = found["plain"], found["kernel"]
    return {
        "shape": shape,
        "frames": frames,
        "positions": sweeps["plain"].layout.length,
        "length": sweeps["plain"].plan.length,
        "windows": len(sweeps["plain"].cuts),
        "kept_bytes": sweeps["plain"].cost.kept_bytes(sweeps["plain"].plan.length),
        "plain_over_kernel": {
            name: plain["sweep"][name] / kernel["sweep"][name]
            for name in ("bytes", "flops", "modelled_seconds")
        },
        **found,
    }


class Sweep:
    """All of the paper's windows over one prompt, for one device."""

    def __init__(self, chip: Chip, shape: str, frames: int, *, kernel: bool) -> None:
        self.chip, self.kernel = chip, kernel
        [self.device, *_] = described(Slice.parse(SLICES[chip.name]))
        self.config: DecoderConfig = SHAPES[shape]
        self.layout: TokenLayout = prompt_layout(frames, TOKENS_PER_FRAME)
        cells = protocol(width=WINDOW).cells(self.layout, self.config.layers, self.config.heads)
        self.cuts = [cell.knockout for cell in cells if isinstance(cell.knockout, Knockout)]
        footprints = [footprint(self.layout, cut) for cut in self.cuts]
        self.plan: Plan = plan_sweep(
            self.layout.length,
            footprints,
            self.config,
            value_bytes=2,
            kernel=kernel,
            platform=chip.backend,
        )
        self.cost = Cost(self.config, 2, kernel, chip.backend)

    def lowered(self) -> Iterator[tuple[Batch | None, Lowered]]:
        """Every program."""
        decoder = nnx.eval_shape(lambda: Decoder(self.config, jnp.dtype("bfloat16"), nnx.Rngs(0)))
        decoder = jax.tree.map(self.place, decoder)
        decoder.kernel = self.chip.kernel if self.kernel else None
        padded = jax.eval_shape(
            lambda x: Embedded.of(x).padded(self.plan.length),
            jax.ShapeDtypeStruct((self.layout.length, self.config.width), jnp.bfloat16),
        )
        padded = jax.tree.map(self.place, padded)
        return engine.lower_plan(decoder, padded, self.layout, self.cuts, self.plan, self.place)

    def place(self, leaf: Any) -> jax.ShapeDtypeStruct:  # noqa: ANN401 - an array of any library
        """The same array, or shape, on the device."""
        on_device = SingleDeviceSharding(self.device)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=on_device)

    def measure(self, compiled: dict[Any, dict[str, Any]]) -> dict[str, Any]:
        """Every program's figures, and the whole sweep's."""
        programs, texts = [], {}
        for batch, lowered in self.lowered():
            own = self.kernel and (batch is None or attends_by_kernel(batch))
            key = own, None if batch is None else batch.shape
            if key not in compiled:
                compiled[key] = compile_one(lowered, self.chip)
            figures = dict(compiled[key])
            shape = None if batch is None else batch.shape
            texts[shape] = figures.pop("text")
            programs.append(
                {
                    "program": "prefill" if shape is None else list(shape),
                    "attends_by_kernel": own,
                    **figures,
                }
            )
            say(" ".join(f"{name}={value}" for name, value in programs[-1].items()))
        runs = [self.run(None, texts), *(self.run(batch, texts) for batch in self.plan.batches)]
        return {
            "sweep": summed(runs, self.chip),
            "prefill": summed(runs[:1], self.chip),
            "most_temporary_bytes": max(each["temporary_bytes"] for each in programs),
            "programs": programs,
        }

    def run(self, batch: Batch | None, texts: dict[Any, str]) -> ProgramCost:
        """What one call of a program does."""
        layers, start = self.config.layers, 0 if batch is None else batch.start
        ran = layers if batch is None else layers - 1 - start
        flops = 0.0
        if self.kernel and (batch is None or attends_by_kernel(batch)):
            blocks = self.blocks(batch)[start : start + ran]
            flops = 4.0 * self.config.head_dim * self.config.heads * float(blocks.mean())
        return counted(texts[None if batch is None else batch.shape], ran, flops)

    def blocks(self, batch: Batch | None) -> np.ndarray:
        """Scores that the kernel computes in every layer of a window, for each head."""
        length, layers = self.plan.length, self.config.layers
        group = np.pad(self.layout.cell, (0, length - self.layout.length)).astype(np.int32)
        cuts = [] if batch is None else [self.cuts[batch.knockouts[0]]]
        table = edge_table(self.layout, cuts, layers=layers, heads=self.config.heads)
        first, rows = (0, length) if batch is None else (batch.first_row, batch.rows)
        kernel, width = self.chip.kernel, self.config.head_dim
        maps = make_maps(group, table, kernel, width, first_row=first, rows=rows)
        assert maps is not None
        bounds, size = np.asarray(maps.blocks.bounds), maps.blocks.block_q * maps.blocks.block_k
        kept = (bounds[..., 2] - bounds[..., 0]).sum(-1)
        return size * kept[np.asarray(maps.table)[:, 0]]


def attends_by_kernel(batch: Batch) -> bool:
    """Whether a batch of a decoder with a kernel attends by it."""
    return by_kernel(batch.size, batch.rows, batch.rows + batch.prefix)


def compile_one(lowered: Lowered, chip: Chip) -> dict[str, Any]:
    """Compile a program; its text goes no further than this file."""
    start = time.perf_counter()
    options: Any = None
    if chip.platform == "cuda":  # there is nothing to try them on
        options = {"xla_gpu_autotune_level": "0"}
    program = lowered.compile(compiler_options=options)
    takes = memory(program)
    return {
        "temporary_bytes": takes.temporaries,
        "output_bytes": takes.outputs,
        "compile_seconds": time.perf_counter() - start,
        "text": text_of(program),
    }


def summed(runs: list[ProgramCost], chip: Chip) -> dict[str, float]:
    """FLOPs, bytes and modelled seconds of calls."""
    speeds = COMPUTING * chip.flops, REACHED * chip.bandwidth
    return {
        "flops": sum(run.flops for run in runs),
        "bytes": sum(run.bytes for run in runs),
        "modelled_seconds": sum(run.seconds(*speeds) for run in runs),
    }


@functools.cache
def counted(text: str, layers: int, kernel_flops: float) -> ProgramCost:
    """What a program does whose loop runs so many layers, with a kernel's FLOPs in each."""

    def of_call(_call: Instruction) -> float:
        return kernel_flops

    return program_cost(text, unknown_trips=layers, kernel_flops=dict.fromkeys(KERNELS, of_call))


if __name__ == "__main__":
    main()
