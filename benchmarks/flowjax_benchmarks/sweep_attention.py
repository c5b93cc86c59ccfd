"""The planned sweep by the attention kernel beside the same by plain attention, in one process.

    flowjax bench sweep-attention --shape qwen2.5-vl-7b --frames 28 --frames 113 --json FILE

One prompt for each number of frames, random weights in bfloat16, and one edge of each kind: into
most rows, into the question, into the last position. Both sweeps take turns; the logits of both are
compared, and on the first prompt with those of full forwards in float32. On a CPU the
kernel is the one in plain XLA, which shows that the command works and no more.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flowjax.edges import Knockout
from flowjax.errors import FlowjaxError
from flowjax.models.decoder import Decoder, DecoderConfig
from flowjax.models.embedded import Embedded
from flowjax.models.flash import kernel_here
from flowjax.models.rope import Rope
from flowjax.sweeps import engine, reference
from flowjax.sweeps.protocol import protocol
from flowjax_benchmarks.record import command_line, record, say, write_result
from flowjax_benchmarks.shape import random_decoder, shape_of
from flowjax_benchmarks.sweep import SHAPES as SWEEPS
from flowjax_benchmarks.sweep import Setting, difference, prompt_layout, timed

TOKENS_PER_FRAME = 144
EDGES = ("cross_frame", "video->question", "video->last")

SHAPES = {
    "small": SWEEPS["small"].config,
    "llava-7b": SWEEPS["7b"].config,
    "qwen2.5-vl-7b": DecoderConfig(
        vocabulary=152_064,
        width=3584,
        mlp_width=18_944,
        layers=28,
        heads=28,
        kv_heads=4,
        head_dim=128,
        norm_eps=1e-6,
        rope=Rope(128, 1e6),
        qkv_bias=True,
        qk_norm=False,
        tied_embeddings=False,
        window=None,
    ),
}
WINDOW = {"small": 3, "llava-7b": 9, "qwen2.5-vl-7b": 9}


def run(
    shape: str,
    *,
    frames: Sequence[int] = (8,),
    layers: int | None = None,
    rounds: int = 3,
    json: Path | None = None,
) -> None:
    """Measure, print, and write the result after every prompt.

    Args:
        shape: a name in `SHAPES`.
        frames: of 144 tokens, of each prompt.
        layers: fewer than the decoder's, so that it takes less time; None for all.
        rounds: sweeps of each kind, of which the median counts.
        json: file of the result.

    Raises:
        FlowjaxError: an unknown shape, or a number out of range.
    """
    config = shape_of(SHAPES, shape)
    if not 1 <= (layers or 1) <= config.layers:
        raise FlowjaxError(f"--layers {layers}: {shape} has 1 to {config.layers}")
    config = dataclasses.replace(config, layers=layers or config.layers)
    plain = random_decoder(config, "bfloat16")
    graph, state = nnx.split(plain)
    by_kernel = nnx.merge(graph, state)  # of the same arrays
    by_kernel.kernel = kernel_here(config.head_dim, "bfloat16")
    if by_kernel.kernel is None and jax.default_backend() != "cpu":
        raise FlowjaxError(f"no kernel for this device: {jax.devices()[0].device_kind}")
    by_kernel.kernel = by_kernel.kernel or "xla"
    width = min(WINDOW[shape], config.layers)
    command = command_line("sweep-attention", shape=shape, frames=frames, layers=layers, json=json)
    prompts = []
    for count in frames:
        both = [setting(decoder, count, width) for decoder in (plain, by_kernel)]
        figures, logits = measure(both[0], both[1], rounds)
        if not prompts:
            figures["error_against_float32"] = errors(both[0], logits)
        prompts.append(figures)
        show(figures)
        result = {
            "shape": shape,
            "layers": config.layers,
            "window": width,
            "kernel": by_kernel.kernel,
            "edges": EDGES,
            "prompts": prompts,
            **record(command),
        }
        if json is not None:
            write_result(json, result)


def setting(decoder: Decoder, frames: int, width: int) -> Setting:
    """A prompt of random embeddings, and the windows of every edge."""
    config, layout = decoder.config, prompt_layout(frames, TOKENS_PER_FRAME)
    x = jax.random.normal(jax.random.key(1), (layout.length, config.width), "bfloat16")
    asked = protocol((), EDGES, width=width)
    cuts = [cell.knockout for cell in asked.cells(layout, config.layers, config.heads)]
    knockouts = [cut for cut in cuts if isinstance(cut, Knockout)]
    edges = [knockouts[i : i + config.layers] for i in range(0, len(knockouts), config.layers)]
    return Setting(decoder, Embedded.of(x), layout, tuple(map(tuple, edges)), 1)


def measure(
    plain: Setting, by_kernel: Setting, rounds: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Seconds of whole sweeps and of prefills, in turns, and how far their logits differ.

    Returns:
        The figures, and all windows' logits of both.
    """
    say(f"{plain.layout.length} positions: compiling")
    both = {"plain": plain, "kernel": by_kernel}
    with ThreadPoolExecutor(len(both)) as pool:
        list(pool.map(compile_programs, both.values()))
    seconds: dict[str, list[float]] = {name: [] for name in both}
    logits: dict[str, np.ndarray] = {}
    for number in range(rounds):
        for name, chosen in both.items():
            say(f"round {number + 1} of {rounds}: {name}")
            taken, logits[name] = timed(chosen.planned)
            seconds[name].append(taken)
    prefill = {
        name: [timed(lambda chosen=chosen: base_logits(chosen))[0] for _ in range(rounds)]
        for name, chosen in both.items()
    }
    figures = {
        "positions": plain.layout.length,
        "windows": len(plain.knockouts),
        "ratio_plain_over_kernel": ratio(seconds),
        "ratio_plain_over_kernel_prefill": ratio(prefill),
        "seconds": seconds,
        "seconds_prefill": prefill,
        "logits": {
            "largest_difference": difference(logits["plain"], logits["kernel"]),
            "spread": float(logits["plain"].std()),
            "same_most_probable": float(
                (logits["plain"].argmax(-1) == logits["kernel"].argmax(-1)).mean()
            ),
        },
    }
    return figures, logits


def compile_programs(chosen: Setting) -> None:
    """Run one batch of every shape, that of the fewest layers."""
    plan = chosen.plan(chosen.knockouts)
    base = engine.prefill(chosen.decoder, chosen.embedded.padded(plan.length))
    last = {batch.shape: batch for batch in plan.batches}
    short = dataclasses.replace(plan, batches=tuple(last.values()))
    for _, logits in engine.run_plan(chosen.decoder, base, chosen.layout, chosen.knockouts, short):
        jax.block_until_ready(logits)


def base_logits(chosen: Setting) -> np.ndarray:
    """The prefill's logits."""
    padded = chosen.embedded.padded(chosen.plan(()).length)
    return np.asarray(engine.prefill(chosen.decoder, padded).logits)


def errors(plain: Setting, logits: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest difference of some windows' logits from those of full forwards in float32."""
    config = plain.decoder.config
    number = {id(cut): index for index, cut in enumerate(plain.knockouts)}
    few = [edge[0] for edge in plain.edges]
    chosen = [number[id(cut)] for cut in few]
    graph, _ = nnx.split(nnx.eval_shape(lambda: Decoder(config, jnp.dtype("float32"), nnx.Rngs(0))))
    _, state = nnx.split(plain.decoder)
    exact = nnx.merge(graph, jax.tree.map(lambda leaf: leaf.astype("float32"), state))
    x = plain.embedded._replace(x=plain.embedded.x.astype("float32"))
    expected = reference.full_forwards(exact, x, plain.layout, few, batch=1).collect(len(few))
    return {name: difference(found[chosen], expected) for name, found in logits.items()}


def ratio(seconds: dict[str, list[float]]) -> float:
    """Plain attention's median over the kernel's."""
    return statistics.median(seconds["plain"]) / statistics.median(seconds["kernel"])


def show(result: dict[str, Any]) -> None:
    """Print a prompt's main figures."""
    for name in ("plain", "kernel"):
        sweep = statistics.median(result["seconds"][name])
        prefill = statistics.median(result["seconds_prefill"][name])
        print(f"{result['positions']} positions, {name}: {sweep:.3f} s, prefill {prefill:.3f} s")
    print(f"{result['ratio_plain_over_kernel']:.2f} x; logits: {result['logits']}", flush=True)
    if found := result.get("error_against_float32"):
        print(f"against float32: {found}", flush=True)
