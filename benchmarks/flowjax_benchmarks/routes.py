"""Sample-adaptive prefills along their routes, beside one static program, in one process.

    flowjax bench routes --json benchmarks/results/routes-cpu.json

Random weights and embeddings. Video leaves before each of the layers at which `flowjax adaptive`
decides, or never; what is looked at on the way does not choose, so that every route is run. Beside
all edges as one program, "plain", what a pass along segments and its decisions cost can be seen.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from flowjax.compilation import count_compilations
from flowjax.efficiency.cut import apply_knockouts
from flowjax.efficiency.method import Prompt
from flowjax.errors import FlowjaxError
from flowjax.inference.adaptive import Routed, prefill_routed, routed_cost
from flowjax.inference.exit_rule import ENTROPY, OPTION_GAP
from flowjax.inference.policy import ATTENTION, LAYER, Doubt, decisions_of
from flowjax.inference.routes import SETS, Routes, compile_routes
from flowjax.models.embedded import Embedded
from flowjax.report.statistics import rank_correlation
from flowjax_benchmarks.prefill import SHAPES
from flowjax_benchmarks.record import command_line, record, say, write_result
from flowjax_benchmarks.shape import random_decoder, shape_of
from flowjax_benchmarks.sweep import prompt_layout

LETTERS = (0, 1, 2, 3)
"""Token ids of the options."""

VIDEO_CLOSED = SETS.index("video") + 1
"""How many sets are closed when video has left."""


def run(shape: str, *, json: Path | None, frames: int = 8, rounds: int = 5) -> None:
    """Measure, print, and write the result.

    Args:
        shape: a name in `flowjax_benchmarks.prefill.SHAPES`.
        json: file of the result.
        frames: of the prompt.
        rounds: of all routes, whose median counts.

    Raises:
        FlowjaxError: an unknown shape.
    """
    chosen = shape_of(SHAPES, shape)
    config = chosen.config
    decoder = random_decoder(config, chosen.dtype)
    layout = prompt_layout(frames, chosen.tokens_per_frame)
    embedded = [
        Embedded.of(jax.random.normal(key, (layout.length, config.width), chosen.dtype))
        for key in jax.random.split(jax.random.key(1), 2)
    ]
    routes = compile_routes(layout, (), config, decisions=decisions_of(config.layers))
    none = np.zeros((frames, 0), np.int32)
    prompt = Prompt("", decoder, embedded[0], layout, none, np.array(LETTERS, np.int32), _blind)
    result = {
        "positions": layout.length,
        **measure(prompt, embedded[1], routes, rounds),
        "shape": {"name": shape, "layers": config.layers, "width": config.width},
        "rounds": rounds,
        **record(command_line("routes", shape=shape, frames=frames, rounds=rounds, json=json)),
    }
    if json is not None:
        write_result(json, result)


def measure(prompt: Prompt, other: Embedded, routes: Routes, rounds: int) -> dict[str, Any]:
    """Every route by the option gap, and with nothing closed by every doubt, in turns."""
    plain = apply_knockouts(prompt, ())
    segments = len(routes.bounds)
    ways = [
        (0,) * segments,
        *((0,) * at + (VIDEO_CLOSED,) * (segments - at) for at in range(segments - 1, 0, -1)),
    ]
    kinds: list[tuple[str, tuple[int, ...], Doubt]] = [
        ("nothing leaves, by no doubt", ways[0], LAYER),
        ("nothing leaves, by entropy", ways[0], ENTROPY),
        ("nothing leaves, by attention", ways[0], ATTENTION),
        ("nothing leaves, by option gap", ways[0], OPTION_GAP),
    ]
    for way in ways[1:]:
        layer = routes.bounds[way.index(VIDEO_CLOSED)][0]
        kinds.append((f"video leaves before layer {layer + 1}", way, OPTION_GAP))

    def along(way: tuple[int, ...], doubt: Doubt, x: Embedded) -> Callable[[], Routed]:
        letters = jnp.asarray(LETTERS) if doubt == OPTION_GAP else None
        bounds = [layer for layer, _ in routes.bounds]
        return lambda: prefill_routed(
            prompt.decoder,
            x,
            routes,
            lambda _before, _doubts, layer: way[bounds.index(layer)],
            doubt,
            letters,
        )

    with count_compilations() as by_plain:
        jax.block_until_ready(plain.prefill())
    by_gap, compiled = 0, []
    for name, way, doubt in kinds:
        with count_compilations() as made:
            jax.block_until_ready(along(way, doubt, prompt.embedded)().logits)
        compiled.append(len(made))
        by_gap += len(made) * (doubt == OPTION_GAP)
        say(f"{name}: {len(made)} programs compiled")
    with count_compilations() as again:
        for _, way, doubt in kinds:
            jax.block_until_ready(along(way, doubt, other)().logits)
    runs = [plain.prefill, *(along(way, doubt, prompt.embedded) for _, way, doubt in kinds)]
    seconds = _in_turns(runs, rounds)
    full = plain.cost().flops
    costs = [
        routed_cost(routes, way, doubt, value_bytes=prompt.value_bytes) for _, way, doubt in kinds
    ]
    rows = [{"route": "plain", "flops": 1.0, "programs": len(by_plain), "seconds": seconds[0]}] + [
        {"route": name, "flops": cost.flops / full, "programs": made, "seconds": own}
        for (name, _, _), cost, made, own in zip(kinds, costs, compiled, seconds[1:], strict=True)
    ]
    medians = [statistics.median(own) for own in seconds]
    for row, median in zip(rows, medians, strict=True):
        row["time"] = median / medians[0]
        show(row)
    flops = np.array([row["flops"] for row in rows], np.float64)
    order = rank_correlation(flops, np.array(medians))
    print(f"rank correlation of FLOPs and time: {order:.3f}")
    print(f"programs of a second prompt along every route: {len(again)}")
    return {
        "routes": rows,
        "rank_correlation_of_flops_and_time": order,
        "programs_of_all_routes": by_gap,
        "programs_of_a_second_prompt": len(again),
    }


def _in_turns(runs: list[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Seconds of each in every round."""
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds):
        say(f"round {turn + 1} of {rounds}")
        for run_once, own in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(run_once().logits)
            own.append(time.perf_counter() - start)
    return seconds


def show(row: Mapping[str, Any]) -> None:
    """Print a route."""
    print(
        f"{row['route']:32} FLOPs {row['flops']:6.3f}  time {row['time']:6.3f}  "
        f"programs {row['programs']}"
    )


def _blind() -> NoReturn:
    raise FlowjaxError("nothing of the vision tower is measured here")
