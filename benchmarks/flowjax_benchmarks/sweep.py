"""The planned sweep beside the naive one, and beside a PyTorch loop, in one process.

    flowjax bench sweep --peer torch --json benchmarks/results/sweep-cpu.json

All three run the paper's 11 edges in every window on one prompt and one set of random weights.
Naive and peer take one edge after the other; between edges, whole planned sweeps run, so that all
see the same machine.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flowjax.edges import Knockout
from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout
from flowjax.models.decoder import Decoder, DecoderConfig
from flowjax.models.embedded import Embedded
from flowjax.models.rope import Rope
from flowjax.sweeps import engine, reference
from flowjax.sweeps.plan import Plan, footprint, plan_sweep
from flowjax.sweeps.protocol import protocol
from flowjax_benchmarks.record import command_line, record, say, write_result
from flowjax_benchmarks.shape import random_decoder, shape_of


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
        window=None,
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


@dataclass(frozen=True, eq=False)
class Setting:
    """Everything that is measured on."""

    decoder: Decoder
    embedded: Embedded
    layout: TokenLayout
    edges: tuple[tuple[Knockout, ...], ...]
    naive_batch: int

    @property
    def knockouts(self) -> tuple[Knockout, ...]:
        """All windows of all edges."""
        return tuple(knockout for edge in self.edges for knockout in edge)

    @property
    def into_last(self) -> list[int]:
        """Indices of the edges into the last position."""
        return [i for i, edge in enumerate(self.edges) if edge[0].edges[0].target == "last"]

    def plan(self, knockouts: Sequence[Knockout]) -> Plan:
        """How these knockouts are computed."""
        return plan_sweep(
            self.layout.length,
            [footprint(self.layout, knockout) for knockout in knockouts],
            self.decoder.config,
            value_bytes=self.embedded.x.dtype.itemsize,
            kernel=self.decoder.kernel_for(self.layout.length) is not None,
            platform=jax.default_backend(),
        )

    def planned(self) -> np.ndarray:
        """The whole planned sweep, its prefill included."""
        answers = engine.planned(self.decoder, self.embedded, self.layout, self.knockouts)
        return answers.collect(len(self.knockouts))


def setting(shape: Shape) -> Setting:
    """Random weights and embeddings of a shape."""
    config = shape.config
    layout = prompt_layout(shape.frames, shape.tokens_per_frame)
    decoder = random_decoder(config, shape.dtype)
    x = jax.random.normal(jax.random.key(1), (layout.length, config.width), shape.dtype)
    knockouts = [
        cell.knockout
        for cell in protocol(width=shape.window).cells(layout, config.layers, config.heads)
        if isinstance(cell.knockout, Knockout)
    ]
    edges = [knockouts[i : i + config.layers] for i in range(0, len(knockouts), config.layers)]
    return Setting(
        decoder,
        Embedded.of(x),
        layout,
        tuple(map(tuple, edges)),
        shape.naive_batch,
    )


@dataclass(frozen=True, eq=False)
class Measured:
    """Seconds per edge (naive, peer) or per whole sweep (planned), and all logits."""

    naive: list[float]
    planned: list[float]
    peer: list[float]
    naive_logits: np.ndarray
    planned_logits: np.ndarray
    peer_logits: np.ndarray | None


Forward = Callable[[Sequence[Knockout]], np.ndarray]


def measure(chosen: Setting, forward: Forward | None, rounds: int) -> Measured:
    """Run all of it, alternating; every compiled function has run once before."""
    say(f"{len(chosen.knockouts)} knockouts, {chosen.layout.length} positions; compiling")
    planned_logits = chosen.planned()
    naive_time(chosen, chosen.edges[0][: chosen.naive_batch])
    if forward:
        forward(chosen.edges[0][:1])
    naive, planned, peer = [], [], []
    naive_logits, peer_logits = [], []
    pause = -(-len(chosen.edges) // rounds)
    for index, edge in enumerate(chosen.edges):
        say(f"edge {index + 1} of {len(chosen.edges)}: {edge[0].name}")
        if index % pause == 0:
            seconds, planned_logits = timed(chosen.planned)
            planned.append(seconds)
        seconds, logits = naive_time(chosen, edge)
        naive.append(seconds)
        naive_logits.append(logits)
        if forward:
            seconds, logits = timed(functools.partial(forward, edge))
            peer.append(seconds)
            peer_logits.append(logits)
    return Measured(
        naive,
        planned,
        peer,
        np.concatenate(naive_logits),
        planned_logits,
        np.concatenate(peer_logits) if forward else None,
    )


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
    if peer not in (None, "torch"):
        raise FlowjaxError(f"--peer {peer!r}: only torch is there")
    chosen = setting(shape_of(SHAPES, shape))
    forward = torch_peer(chosen) if peer else None
    measured = measure(chosen, forward, rounds)
    last = statistics.median(last_edges_time(chosen) for _ in range(2 * rounds))
    prefill = statistics.median(prefill_time(chosen) for _ in range(2 * rounds))
    naive_last = sum(measured.naive[index] for index in chosen.into_last)
    plan = chosen.plan(chosen.knockouts)
    flops, planned = plan.flops, statistics.median(measured.planned)
    result: dict[str, Any] = {
        "ratio_naive_over_planned": sum(measured.naive) / planned,
        "ratio_torch_over_planned": sum(measured.peer) / planned if forward else None,
        "executed_over_bound": flops.planned / flops.bound,
        "executed_over_bound_windows_alone": flops.windows / flops.bound_windows,
        "ratio_last_edges": naive_last / last,
        "ratio_last_edges_prefill_included": naive_last / (last + prefill),
        "ratio_flops_naive_over_planned": flops.naive / flops.planned,
        "seconds": {
            "naive": sum(measured.naive),
            "planned": measured.planned,
            "torch": sum(measured.peer) if forward else None,
            "naive_last_edges": naive_last,
            "planned_last_edges": last,
            "prefill": prefill,
        },
        "flops": {
            "naive": flops.naive,
            "planned": flops.planned,
            "prefill": flops.baseline,
            "bound": flops.bound,
        },
        "memory_bytes_beside_parameters": peak_memory(chosen),
        "compiled_functions": plan.shapes + 1,
        "largest_difference_of_logits": {
            "naive": difference(measured.naive_logits, measured.planned_logits),
            "torch": None
            if measured.peer_logits is None
            else difference(measured.peer_logits, measured.planned_logits),
        },
        "shape": describe(shape, chosen),
        **record(
            command_line("sweep", shape=shape, peer=peer, json=json),
            ("torch", "transformers") if peer else (),
        ),
    }
    show(result)
    if json is not None:
        write_result(json, result)


def describe(name: str, chosen: Setting) -> dict[str, Any]:
    """What was measured on."""
    config, shape = chosen.decoder.config, SHAPES[name]
    return {
        "name": name,
        "layers": config.layers,
        "width": config.width,
        "heads": config.heads,
        "mlp_width": config.mlp_width,
        "dtype": shape.dtype,
        "positions": chosen.layout.length,
        "frames": shape.frames,
        "tokens_per_frame": shape.tokens_per_frame,
        "edges": len(chosen.edges),
        "window": shape.window,
        "knockouts": len(chosen.knockouts),
    }


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest absolute difference."""
    return float(np.abs(one - other).max())


def naive_time(chosen: Setting, knockouts: Sequence[Knockout]) -> tuple[float, np.ndarray]:
    """Seconds and logits of full forwards; the forward without knockout is not timed."""
    answers = reference.full_forwards(
        chosen.decoder, chosen.embedded, chosen.layout, knockouts, batch=chosen.naive_batch
    )
    jax.block_until_ready(answers.base)
    return timed(lambda: answers.collect(len(knockouts)))


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds, and what the work gives (on the host, so it is done)."""
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, value


def last_edges_time(chosen: Setting) -> float:
    """Seconds for the windows of the edges into `last`, from a prefill that is there."""
    knockouts = [knockout for index in chosen.into_last for knockout in chosen.edges[index]]
    plan = chosen.plan(knockouts)
    base = jax.block_until_ready(prefill(chosen, plan))
    start = time.perf_counter()
    for _, logits in engine.run_plan(chosen.decoder, base, chosen.layout, knockouts, plan):
        jax.block_until_ready(logits)
    return time.perf_counter() - start


def prefill_time(chosen: Setting) -> float:
    """Seconds for the prefill that all windows share."""
    plan = chosen.plan(())
    start = time.perf_counter()
    jax.block_until_ready(prefill(chosen, plan))
    return time.perf_counter() - start


def prefill(chosen: Setting, plan: Plan) -> engine.Baseline:
    """The kept states of the prompt."""
    return engine.prefill(chosen.decoder, chosen.embedded.padded(plan.length))


def peak_memory(chosen: Setting) -> dict[str, int]:
    """Bytes beside the parameters, as the compiler allots them: temporaries and kept states."""
    prompt = chosen.decoder, chosen.embedded, chosen.layout, chosen.knockouts
    plan = chosen.plan(chosen.knockouts)
    return {
        "naive": reference.temporary_bytes(*prompt, batch=chosen.naive_batch),
        "planned": engine.peak_bytes(*prompt, plan),
        "planned_estimate": plan.bytes,
    }


def torch_peer(chosen: Setting) -> Forward:
    """The loop of the published reference with our weights: eager attention, dense masks."""
    from flowjax_benchmarks.torch_peer import TorchLoop  # noqa: PLC0415 - torch is a test dependency

    return TorchLoop(chosen.decoder, chosen.embedded, chosen.layout)


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
