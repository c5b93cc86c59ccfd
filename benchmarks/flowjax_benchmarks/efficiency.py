"""Prefills made cheaper in every way there is, beside the one that cuts nothing, in one process.

    flowjax bench efficiency --json benchmarks/results/efficiency-cpu.json

Random weights, embeddings and vision attention. Of each method the settings whose FLOPs are nearest
to the shares that `flowjax efficiency` compares at; all run one after the other in every round, and
each is compared with its masked form. Early exits are after one layer for all; sample-adaptive
prefills, whose costs the states decide, are in `flowjax bench routes`.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flowjax.compilation import count_compilations
from flowjax.efficiency.front import FULL, LEVELS
from flowjax.efficiency.method import Applied, Prompt, Setting, Subject, methods
from flowjax.efficiency.methods.exit import Exit
from flowjax.efficiency.seen import Seen
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.report.statistics import rank_correlation
from flowjax_benchmarks.prefill import PATHWAY_OF, SHAPES
from flowjax_benchmarks.record import command_line, record, say, write_result
from flowjax_benchmarks.shape import random_decoder, shape_of
from flowjax_benchmarks.sweep import prompt_layout

KEY_WIDTH = 1024
"""Of the vision tower's keys: CLIP-L's."""
SEVEN_B = (8, 113)
"""Frames of 144 tokens whose costs are counted at 7B shapes, in bfloat16."""


@dataclass(frozen=True)
class Contender:
    """A setting on the prompt, and what it costs beside the one that cuts nothing.

    flops, cache: shares.
    """

    method: str
    setting: Setting
    applied: Applied
    flops: float
    cache: float


def prompt_of(
    decoder: Decoder, embedded: Embedded, seen: Seen, frames: int, tokens_per_frame: int
) -> Prompt:
    """The published prompt; arrays may be shapes alone."""
    layout = prompt_layout(frames, tokens_per_frame)
    grid = layout.positions("video").astype(np.int32).reshape(frames, tokens_per_frame)
    letters = np.arange(4, dtype=np.int32)
    return Prompt("bench", decoder, embedded, layout, grid, letters, lambda: seen)


def contenders(prompt: Prompt, levels: Sequence[float] = LEVELS) -> Iterator[Contender]:
    """The prefill that cuts nothing, and of every method the settings nearest to some shares.

    Those of `flowjax pathways find` are left out: they are found in a model that knows something.
    """
    layers = prompt.decoder.config.layers
    subject = Subject(PATHWAY_OF, layers, len(prompt.grid))
    (nothing,) = methods()[FULL].settings(subject)
    full = nothing.apply(prompt).cost()
    yield Contender(FULL, nothing, nothing.apply(prompt), 1.0, 1.0)
    for name, method in methods().items():
        if name in (FULL, "random_edges", "adaptive"):
            continue
        found = []
        by_layer = [Exit(0.0, layer) for layer in range(layers - 1)]
        for setting in by_layer if name == "exit" else method.settings(subject):
            applied = setting.apply(prompt)
            cost = applied.cost()
            shares = cost.flops / full.flops, cost.cache_bytes / full.cache_bytes
            found.append(Contender(name, setting, applied, *shares))
        nearest = [min(found, key=lambda at: abs(at.flops - level)) for level in levels if found]
        yield from dict.fromkeys(nearest)


def run(shape: str, *, json: Path | None, frames: int = 8, rounds: int = 5) -> None:
    """Measure, print, and write the result.

    Args:
        shape: a name in `flowjax_benchmarks.prefill.SHAPES`.
        json: file of the result.
        frames: of the prompt.
        rounds: of all contenders, whose median counts.

    Raises:
        FlowjaxError: an unknown shape.
    """
    chosen = shape_of(SHAPES, shape)
    config, tokens = chosen.config, chosen.tokens_per_frame
    decoder = random_decoder(config, chosen.dtype)
    keys = jax.random.split(jax.random.key(1), 3)
    length = prompt_layout(frames, tokens).length
    seen = Seen(
        jax.nn.softmax(jax.random.normal(keys[1], (frames, tokens))),
        jax.random.normal(keys[2], (frames, tokens, KEY_WIDTH)),
    )
    x = jax.random.normal(keys[0], (length, config.width), chosen.dtype)
    prompt = prompt_of(decoder, Embedded.of(x), seen, frames, tokens)
    result = {
        "positions": length,
        **measure(prompt, list(contenders(prompt)), rounds),
        "counted_at_7b": [row for frames in SEVEN_B for row in counted(frames)],
        "shape": {"name": shape, "layers": config.layers, "width": config.width},
        "rounds": rounds,
        **record(command_line("efficiency", shape=shape, frames=frames, rounds=rounds, json=json)),
    }
    if json is not None:
        write_result(json, result)


def abstract_prompt(frames: int, place: Callable[[Any], Any] = lambda leaf: leaf) -> Prompt:
    """A prompt of LLaVA 7B in bfloat16, as shapes alone, each of them placed."""
    shape = SHAPES["7b"]
    config, tokens = shape.config, shape.tokens_per_frame
    length = prompt_layout(frames, tokens).length

    def array(sizes: tuple[int, ...], dtype: Any) -> Any:  # noqa: ANN401 - in an array's place
        return place(jax.ShapeDtypeStruct(sizes, dtype))

    decoder = nnx.eval_shape(lambda: Decoder(config, jnp.dtype(shape.dtype), nnx.Rngs(0)))
    x = Embedded(array((length, config.width), jnp.bfloat16), array((1, length), jnp.int32))
    key = array((frames, tokens, KEY_WIDTH), jnp.float32)
    seen = Seen(array((frames, tokens), jnp.float32), key)
    return prompt_of(jax.tree.map(place, decoder), x, seen, frames, tokens)


def counted(frames: int) -> Iterator[dict[str, Any]]:
    """What every contender costs at 7B shapes; nothing is compiled for a chip."""
    prompt = abstract_prompt(frames)
    for one in contenders(prompt):
        cost = one.applied.cost()
        yield {
            "positions": prompt.layout.length,
            "method": one.method,
            "setting": one.setting.label,
            "flops": cost.flops,
            "flops_share": one.flops,
            "kv_cache_bytes": cost.cache_bytes,
            "kv_cache_share": one.cache,
        }


def measure(prompt: Prompt, every: Sequence[Contender], rounds: int) -> dict[str, Any]:
    """All contenders in turns; each has run once before."""
    differences, programs = [], []
    for one in every:
        with count_compilations() as made:
            compiled = jax.block_until_ready(one.applied.prefill()).logits
        programs.append(len(made))
        masked = one.applied.masked().logits(prompt.decoder)
        differences.append(float(jnp.abs(compiled - masked).max()))
        say(f"{one.method} {one.setting.label}: compiled, {differences[-1]:.1e} from its mask")
    seconds: list[list[float]] = [[] for _ in every]
    with count_compilations() as more:
        for turn in range(rounds):
            say(f"round {turn + 1} of {rounds}")
            for one, own in zip(every, seconds, strict=True):
                start = time.perf_counter()
                jax.block_until_ready(one.applied.prefill())
                own.append(time.perf_counter() - start)
    medians = [statistics.median(own) for own in seconds]
    rows = [
        {
            "method": one.method,
            "setting": one.setting.label,
            "flops": one.flops,
            "kv_cache": one.cache,
            "time": median / medians[0],
            "largest_difference_of_logits": difference,
            "programs": compiled,
            "seconds": own,
        }
        for one, median, difference, compiled, own in zip(
            every, medians, differences, programs, seconds, strict=True
        )
    ]
    for row in rows:
        print(
            f"{row['method']:14} {row['setting']:44.44} FLOPs {row['flops']:6.3f}  "
            f"cache {row['kv_cache']:6.3f}  time {row['time']:6.3f}"
        )
    order = rank_correlation(np.array([one.flops for one in every]), np.array(medians))
    print(f"rank correlation of FLOPs and time: {'undefined' if math.isnan(order) else order}")
    print(f"programs compiled in {rounds} rounds: {len(more)}")
    return {
        "contenders": rows,
        "rank_correlation_of_flops_and_time": order,
        "programs_compiled_in_rounds": len(more),
    }
