"""The planned sweep beside the naive one, and beside a PyTorch loop, in one process.

    flowjax bench sweep --peer torch --json benchmarks/results/sweep-cpu.json

All three run the paper's 11 edges in every window on one prompt and one set of random weights.
Naive and peer take one edge after the other; between edges, whole planned sweeps run, so that all
see the same machine.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.record import command_line, record, say, write_result
from flowjax.edges import EDGE_SETS, Knockout
from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout
from flowjax.models.decoder import Decoder, DecoderConfig
from flowjax.models.rope import Rope
from flowjax.sweep import engine, reference
from flowjax.sweep.answers import Embedded
from flowjax.sweep.plan import Cost, footprint, plan_sweep
from flowjax.sweep.protocol import protocol


@dataclass(frozen=True)
class Shape:
    """A decoder, a prompt and a window to measure on."""

    config: DecoderConfig
    dtype: str
    window: int
    frames: int = 8
    tokens_per_frame: int = 144
    naive_batch: int = 4


def decoder_config(layers: int, width: int, heads: int, mlp_width: int) -> DecoderConfig:
    """A Llama decoder with 32,000 tokens."""
    return DecoderConfig(
        vocabulary=32_000,
        width=width,
        mlp_width=mlp_width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        norm_eps=1e-5,
        rope=Rope(width // heads, 10_000.0),
        qkv_bias=False,
        qk_norm=False,
        tied_embeddings=False,
    )


SHAPES = {
    "small": Shape(decoder_config(12, 512, 8, 1376), "float32", window=3),
    "7b": Shape(decoder_config(32, 4096, 32, 11008), "bfloat16", window=9, naive_batch=1),
}


def prompt_layout(frames: int, tokens_per_frame: int) -> TokenLayout:
    """The published prompt with four options: 120 text tokens around the video."""
    names = ["system"] * 50
    names += [f"frame_{index}" for index in range(frames) for _ in range(tokens_per_frame)]
    names += ["instruction"] * 5 + ["question_format"] * 2 + ["question_stem"] * 10
    names += ["question_format"] * 4
    for letter in "ABCD":
        names += ["question_format", *[f"option_{letter}"] * 7]
    return TokenLayout.from_cells([*names, *["instruction"] * 16, "last"], "option_B")


def run(shape: str, *, peer: str | None, json: Path | None, rounds: int = 3) -> None:
    """Measure, print, and write the result.

    Args:
        shape: a name in `SHAPES`.
        peer: "torch" to measure a PyTorch loop too.
        json: file of the result.
        rounds: whole planned sweeps, of which the median counts.

    Raises:
        FlowjaxError: an unknown shape or peer.
    """
    if shape not in SHAPES:
        raise FlowjaxError(f"--shape {shape!r}: choose one of {', '.join(SHAPES)}")
    if peer not in (None, "torch"):
        raise FlowjaxError(f"--peer {peer!r}: only torch is there")
    chosen = SHAPES[shape]
    config = chosen.config
    layout = prompt_layout(chosen.frames, chosen.tokens_per_frame)
    decoder = jax.jit(lambda: Decoder(config, jnp.dtype(chosen.dtype), nnx.Rngs(0)))()
    x = jax.random.normal(jax.random.key(1), (layout.length, config.width), chosen.dtype)
    embedded = Embedded(x, jnp.arange(layout.length, dtype=jnp.int32)[None])
    cells = protocol(width=chosen.window).cells(layout, config.layers, config.heads)
    by_edge = [cells[i : i + config.layers] for i in range(0, len(cells), config.layers)]
    knockouts = [cell.knockout for cell in cells]

    def planned() -> np.ndarray:
        return engine.planned(decoder, embedded, layout, knockouts).collect(len(knockouts))

    def naive(chosen_knockouts: Sequence[Knockout]) -> np.ndarray:
        return reference.full_forwards(
            decoder, embedded, layout, chosen_knockouts, batch=chosen.naive_batch
        ).collect(len(chosen_knockouts))

    forward = torch_peer(decoder, embedded, layout) if peer else None
    say(f"{len(knockouts)} knockouts, {layout.length} positions; compiling")
    planned_logits = planned()
    naive(knockouts[: chosen.naive_batch])
    if forward:
        forward(knockouts[:1])

    naive_s, peer_s, planned_s = [], [], []
    naive_logits, peer_logits = [], []
    pause = max(1, len(by_edge) // rounds)
    for index, group in enumerate(by_edge):
        of_edge = [cell.knockout for cell in group]
        say(f"edge {index + 1} of {len(by_edge)}: {of_edge[0].name}")
        if index % pause == 0 and len(planned_s) < rounds:
            seconds, planned_logits = timed(planned)
            planned_s.append(seconds)
        seconds, part = timed(lambda of_edge=of_edge: naive(of_edge))
        naive_s.append(seconds)
        naive_logits.append(part)
        if forward:
            seconds, part = timed(lambda of_edge=of_edge: forward(of_edge))
            peer_s.append(seconds)
            peer_logits.append(part)

    into_last = [
        index for index, group in enumerate(by_edge) if group[0].knockout.edges[0].target == "last"
    ]
    last = [cell.knockout for index in into_last for cell in by_edge[index]]
    last_s = statistics.median(
        last_edges(decoder, embedded, layout, last) for _ in range(2 * rounds)
    )
    prefill_s = statistics.median(prefill_time(decoder, embedded) for _ in repeats)
    naive_last_s = sum(naive_s[index] for index in into_last)

    plan = plan_sweep(
        layout.length,
        [footprint(layout, knockout) for knockout in knockouts],
        config,
        value_bytes=x.dtype.itemsize,
    )
    total = statistics.median(planned_s)
    flops = plan.flops
    result: dict[str, Any] = {
        "ratio_naive_over_planned": sum(naive_s) / total,
        "ratio_torch_over_planned": sum(peer_s) / total if forward else None,
        "executed_over_bound": flops.planned / flops.bound,
        "ratio_last_edges": naive_last_s / last_s,
        "ratio_last_edges_prefill_included": naive_last_s / (last_s + prefill_s),
        "executed_over_bound_windows_alone": (flops.planned - flops.baseline)
        / (flops.bound - Cost(config, 1).prefill(layout.length, layout.length**2 // 2)),
        "ratio_flops_naive_over_planned": flops.naive / flops.planned,
        "seconds": {
            "naive": sum(naive_s),
            "planned": planned_s,
            "torch": sum(peer_s) if forward else None,
            "planned_last_edges": last_s,
            "prefill": prefill_s,
        },
        "flops": {
            "naive": flops.naive,
            "planned": flops.planned,
            "prefill": flops.baseline,
            "bound": flops.bound,
        },
        "memory_bytes_beside_parameters": peak_memory(decoder, embedded, layout, knockouts, chosen),
        "compiled_functions": plan.shapes + 1,
        "largest_difference_of_logits": {
            "naive": float(np.abs(np.concatenate(naive_logits) - planned_logits).max()),
            "torch": float(np.abs(np.concatenate(peer_logits) - planned_logits).max())
            if forward
            else None,
        },
        "shape": {
            "name": shape,
            "layers": config.layers,
            "width": config.width,
            "heads": config.heads,
            "mlp_width": config.mlp_width,
            "dtype": chosen.dtype,
            "positions": layout.length,
            "frames": chosen.frames,
            "tokens_per_frame": chosen.tokens_per_frame,
            "edges": sum(map(len, EDGE_SETS.values())),
            "window": chosen.window,
            "knockouts": len(knockouts),
        },
        **record(
            command_line("sweep", shape=shape, peer=peer, json=json),
            ("torch", "transformers") if peer else (),
        ),
    }
    show(result)
    if json is not None:
        write_result(json, result)


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds, and what the work gives (on the host, so it is done)."""
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, value


def last_edges(
    decoder: Decoder, embedded: Embedded, layout: TokenLayout, knockouts: Sequence[Knockout]
) -> float:
    """Seconds for the windows of the edges into `last`, from a prefill that is there."""
    plan = plan_sweep(
        layout.length,
        [footprint(layout, knockout) for knockout in knockouts],
        decoder.config,
        value_bytes=embedded.x.dtype.itemsize,
    )
    last = jnp.asarray(layout.length - 1, jnp.int32)
    base = jax.block_until_ready(engine.prefill(decoder, embedded.padded(plan.length), last))
    start = time.perf_counter()
    for _, logits in engine.run_plan(decoder, base, layout, knockouts, plan):
        jax.block_until_ready(logits)
    return time.perf_counter() - start


def prefill_time(decoder: Decoder, embedded: Embedded) -> float:
    """Seconds for the prefill that all windows share."""
    plan = plan_sweep(len(embedded.x), [], decoder.config)
    padded = embedded.padded(plan.length)
    last = jnp.asarray(len(embedded.x) - 1, jnp.int32)
    jax.block_until_ready(engine.prefill(decoder, padded, last))
    start = time.perf_counter()
    jax.block_until_ready(engine.prefill(decoder, padded, last))
    return time.perf_counter() - start


def peak_memory(
    decoder: Decoder,
    embedded: Embedded,
    layout: TokenLayout,
    knockouts: Sequence[Knockout],
    shape: Shape,
) -> dict[str, int]:
    """Bytes beside the parameters, as the compiler allots them: temporaries and kept states."""
    plan = plan_sweep(
        layout.length,
        [footprint(layout, knockout) for knockout in knockouts],
        decoder.config,
        value_bytes=embedded.x.dtype.itemsize,
    )
    return {
        "naive": reference.temporary_bytes(
            decoder, embedded, layout, knockouts, batch=shape.naive_batch
        ),
        "planned": engine.peak_bytes(decoder, embedded, layout, knockouts, plan),
        "planned_estimate": plan.bytes,
    }


def torch_peer(
    decoder: Decoder, embedded: Embedded, layout: TokenLayout
) -> Callable[[Sequence[Knockout]], np.ndarray]:
    """The loop of the published reference with our weights: eager attention, dense masks."""
    from benchmarks.torch_peer import TorchLoop  # noqa: PLC0415 - torch is a test dependency

    return TorchLoop(decoder, embedded, layout)


def show(result: dict[str, Any]) -> None:
    """Print a result's main figures."""
    seconds, memory = result["seconds"], result["memory_bytes_beside_parameters"]
    for name in ("naive", "planned", "torch"):
        value = seconds[name]
        if value is not None:
            print(f"{name:8} {statistics.median(value) if name == 'planned' else value:10.2f} s")
    for name, value in result["flops"].items():
        print(f"{name:8} {value:10.3e} FLOPs")
    for name, value in memory.items():
        print(f"{name:16} {value / 1e6:10.1f} MB beside the parameters")
    for name, value in result.items():
        if name.startswith(("ratio", "executed")) and value is not None:
            print(f"{name:40} {value:8.3f}")
