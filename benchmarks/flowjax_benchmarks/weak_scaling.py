"""Weak scaling from compiled programs: work of a device as devices and work grow together.

    python -m flowjax_benchmarks.weak_scaling --json benchmarks/results/weak-scaling-compiled.json

On 1, 2, 4 and 8 devices along the mesh's axis `data`, which are fake ones of this CPU: a step of
training with as many examples on each device, parameters whole or divided over `data`, and a
batch of windows with as many on each. FLOPs are those of the programs that XLA makes of them
(`flowjax.hlo`), not measured; so are the bytes that collectives read and write.
"""

import os

# Before JAX, which reads them once.
os.environ.update(
    JAX_PLATFORMS="cpu",
    XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
)

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Lowered

from flowjax.compilation import text_of
from flowjax.hlo.cost import program_cost
from flowjax.mesh import DATA, MeshShape
from flowjax.models.checkpoint import nested
from flowjax.models.decoder import DecoderConfig
from flowjax.models.embedded import Embedded
from flowjax.models.projector import PoolingProjectorConfig
from flowjax.models.rope import Rope
from flowjax.models.sharding import parameter_sharding
from flowjax.models.video_llm import (
    VideoLLM,
    VideoLLMConfig,
    abstract_model,
    parameter_shapes,
)
from flowjax.models.vision.clip import ClipConfig
from flowjax.padding import LENGTH_STEP, round_up
from flowjax.planning.compiled import collective_bytes
from flowjax.planning.programs import FROZEN, SCHEDULE
from flowjax.sweeps import engine
from flowjax.sweeps.plan import footprint, plan_sweep
from flowjax.sweeps.protocol import protocol
from flowjax.train.setup import Setup, lower_step
from flowjax_benchmarks.record import record, say, write_result
from flowjax_benchmarks.sweep import prompt_layout

FRAMES, TOKENS = 4, 16
EXAMPLES = 2
"""Of a batch of training, on each device."""


def small() -> VideoLLMConfig:
    """A model whose decoder does most of the work."""
    decoder = DecoderConfig(
        vocabulary=2048,
        width=256,
        mlp_width=688,
        layers=4,
        heads=8,
        kv_heads=8,
        head_dim=32,
        norm_eps=1e-5,
        rope=Rope(32, 1e4),
        qkv_bias=False,
        qk_norm=False,
        tied_embeddings=False,
        window=None,
    )
    vision = ClipConfig(
        width=64,
        mlp_width=128,
        layers=2,
        heads=4,
        image_size=56,
        patch_size=7,
        channels=3,
        norm_eps=1e-5,
        activation="quick_gelu",
        class_token=False,
    )
    projector = PoolingProjectorConfig(
        inputs=64,
        outputs=256,
        grid=(FRAMES, 8, 8),
        pooling=(FRAMES, 4, 4),
        activation="gelu",
    )
    return VideoLLMConfig("pllava", decoder, vision, projector, FRAMES, TOKENS, 3)


def training(mesh: Mesh) -> Lowered:
    """A step with `EXAMPLES` examples on each device."""
    return lower_step(
        Setup(small(), jnp.dtype("float32"), FROZEN, None, 1, True),
        mesh,
        SCHEDULE,
        batch=EXAMPLES * mesh.shape[DATA],
        length=round_up(prompt_layout(FRAMES, TOKENS).length, LENGTH_STEP),
        pixels=(FRAMES, 3, 56, 56),
        video=FRAMES * TOKENS,
    )


def windows(mesh: Mesh) -> Lowered:
    """Two windows of one edge on each device, of many rows."""
    config, layout = small().decoder, prompt_layout(FRAMES, TOKENS)
    asked = protocol((), ("video->question",), width=1)
    devices = mesh.shape[DATA]
    cuts = tuple(
        cell.knockout
        for cell in asked.cells(layout, config.layers, config.heads)
        if cell.centre == 0
    )
    cuts = cuts * (2 * devices)
    feet = [footprint(layout, cut) for cut in cuts]
    plan = plan_sweep(layout.length, feet, config, multiple=2 * devices)
    decoder = placed(small(), mesh).decoder

    def whole(shape: tuple[int, ...], dtype: Any) -> Any:  # noqa: ANN401 - in an array's place
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

    prompt = Embedded(
        whole((plan.length, config.width), jnp.float32),
        whole((1, plan.length), jnp.int32),
        None,
        whole((), jnp.int32),
    )
    first = engine.prefill.lower(decoder, prompt)
    base = jax.tree.map(lambda leaf: whole(leaf.shape, leaf.dtype), first.out_info)
    [(batch, lowered)] = engine.lower_batches(
        decoder,
        base,
        layout,
        cuts,
        plan,
        lambda leaf: (
            leaf if isinstance(leaf, jax.ShapeDtypeStruct) else whole(leaf.shape, leaf.dtype)
        ),
    )
    assert batch.size == 2 * devices
    return lowered


def placed(config: VideoLLMConfig, mesh: Mesh) -> VideoLLM:
    """The model's shapes where parameters lie."""
    graph, state = nnx.split(abstract_model(config, jnp.dtype("float32")))
    shapes = {
        name: jax.ShapeDtypeStruct(
            shape, jnp.float32, sharding=parameter_sharding(name, shape, mesh)
        )
        for name, shape in parameter_shapes(config).items()
    }
    nnx.replace_by_pure_dict(state, nested(shapes))
    return nnx.merge(graph, state)


PROGRAMS: dict[str, Callable[[Mesh], Lowered]] = {"training step": training, "windows": windows}


def measure(names: Sequence[str], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """FLOPs of a device, and bytes of its collectives."""
    rows = []
    for name in names:
        alone = 0.0
        for size in sizes:
            mesh = MeshShape(size, 1).mesh(jax.devices()[:size])
            layers = small().decoder.layers - 1
            cost = program_cost(text_of(PROGRAMS[name](mesh).compile()), unknown_trips=layers)
            alone = alone or cost.flops
            collectives = collective_bytes(cost)
            rows.append(
                {
                    "program": name,
                    "devices": size,
                    "flops_per_device": cost.flops,
                    "over_one_device": cost.flops / alone,
                    "collective_bytes_per_device": collectives,
                }
            )
            say(f"{name}, {size}: {cost.flops / alone:.4f} of one device's, {collectives}")
    return rows


def main() -> None:
    """Compile, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--program", choices=PROGRAMS, nargs="+", default=[*PROGRAMS])
    asked = parser.parse_args()
    command = ["python", "-m", "flowjax_benchmarks.weak_scaling", "--json", str(asked.json)]
    rows = measure(asked.program, asked.sizes)
    write_result(asked.json, {"axis": "data", "programs": rows, **record(command)})


if __name__ == "__main__":
    main()
