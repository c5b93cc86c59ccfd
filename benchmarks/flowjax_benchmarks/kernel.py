"""The pruned-attention kernel beside dense attention, on the strict 7B pathway, in one process.

    flowjax bench kernel --shape small --json benchmarks/results/kernel-cpu.json
    flowjax bench kernel --shape 7b --peer flex --json benchmarks/results/kernel-h100.json

All rows of a prompt attend, in each kind of layer that the pathway has. `dense` is
`jax.nn.dot_product_attention` (cuDNN on a GPU), `uncut` our kernel where no edge is cut. Every
round runs all of them, so that all see the same machine. What counts is a time relative to the
fraction of blocks that are kept: 1 means that a dead block costs nothing and a live one no more
than in dense attention.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from flowjax.edges import Edge, Knockout, edge_table
from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention import (
    BlockMap,
    block_map,
    block_shape,
    pruned_attention,
)
from flowjax.layout import TokenLayout
from flowjax_benchmarks.record import command_line, record, say, write_result
from flowjax_benchmarks.sweep import prompt_layout

LAYERS = 32
TOKENS_PER_FRAME = 144


@dataclass(frozen=True)
class Shape:
    """What is measured on.

    calls: launched back to back for one time, so that launching costs little.
    """

    heads: int
    width: int
    dtype: str
    frames: tuple[int, ...]
    calls: int


SHAPES = {
    "small": Shape(8, 64, "float32", (8, 32), calls=1),
    "7b": Shape(32, 128, "bfloat16", (8, 32, 113, 226), calls=20),
}


class Attention(NamedTuple):
    """A call that starts an attention, and what waits for its result."""

    start: Callable[[], Any]
    wait: Callable[[Any], Any] = jax.block_until_ready


def strict_pathway() -> list[Knockout]:
    """The paper's 7B pathway (arXiv 2510.13251), `instruction` taken as part of the question.

    Layers that keep an edge, 0-based: cross-frame 5-14, video to question 5-19, question to last
    15-24; video reads video until 19, the question itself until 24.
    """
    every = set(range(LAYERS))
    cut = {
        "cross_frame": every - set(range(5, 15)),
        "video->last": every,
        "last->last": every,
        "video->video": every - set(range(20)),
    }
    for text in ("question", "instruction"):
        cut[f"video->{text}"] = every - set(range(5, 20))
        cut[f"{text}->last"] = every - set(range(15, 25))
        for other in ("question", "instruction"):
            cut[f"{other}->{text}"] = every - set(range(25))
    return [Knockout((Edge.parse(edge),), tuple(sorted(layers))) for edge, layers in cut.items()]


def layer_kinds(layout: TokenLayout) -> list[tuple[list[int], Bool[np.ndarray, "1 g g"]]]:
    """The tables that the pathway has, each with its layers."""
    kinds: dict[bytes, tuple[list[int], np.ndarray]] = {}
    tables = edge_table(layout, strict_pathway(), layers=LAYERS, heads=1)
    for layer, table in enumerate(tables):
        kinds.setdefault(table.tobytes(), ([], table))[0].append(layer)
    return list(kinds.values())


@dataclass(frozen=True, eq=False)
class Inputs:
    """Random rows of one prompt."""

    shape: Shape
    layout: TokenLayout
    query: jax.Array
    key: jax.Array
    value: jax.Array

    @classmethod
    def random(cls, shape: Shape, frames: int) -> "Inputs":
        """Normal numbers."""
        layout = prompt_layout(frames, TOKENS_PER_FRAME)
        rows = (layout.length, shape.heads, shape.width)
        keys = jax.random.split(jax.random.key(0), 3)
        return cls(shape, layout, *(jax.random.normal(key, rows, shape.dtype) for key in keys))

    @functools.cached_property
    def position(self) -> np.ndarray:
        """Of all rows."""
        return np.arange(self.layout.length, dtype=np.int32)

    def blocks(self, table: Bool[np.ndarray, "1 g g"]) -> BlockMap:
        """The map of a layer."""
        block_q, block_k = block_shape(self.shape.width)
        return block_map(
            self.layout.cell,
            table,
            self.position,
            self.position,
            block_q=block_q,
            block_k=block_k,
        )

    def pruned(self, blocks: BlockMap) -> Attention:
        """The kernel that the default takes."""
        position, on_device = jnp.asarray(self.position), jax.tree.map(jnp.asarray, blocks)
        call = jax.jit(
            lambda query, key, value, blocks: pruned_attention(
                query,
                key,
                value,
                query_position=position,
                key_position=position,
                blocks=blocks,
            )
        )
        return Attention(lambda: call(self.query, self.key, self.value, on_device))

    def dense(self) -> Attention:
        """JAX's causal attention; cuDNN's on a GPU."""
        call = jax.jit(
            functools.partial(
                jax.nn.dot_product_attention,
                is_causal=True,
                implementation="cudnn" if jax.default_backend() == "gpu" else None,
            )
        )
        batch = self.query[None], self.key[None], self.value[None]
        return Attention(lambda: call(*batch))


def run(shape: str, *, json: Path | None, peer: str | None = None, rounds: int = 5) -> None:
    """Measure, print, and write the result.

    Args:
        shape: a name in `SHAPES`.
        json: file of the result.
        peer: "flex" to measure PyTorch's FlexAttention on the same masks too (needs a GPU).
        rounds: times of each attention, of which the median counts.

    Raises:
        FlowjaxError: an unknown shape or peer, or a peer without a GPU.
    """
    if shape not in SHAPES:
        raise FlowjaxError(f"--shape {shape!r}: choose one of {', '.join(SHAPES)}")
    if peer not in (None, "flex"):
        raise FlowjaxError(f"--peer {peer!r}: only flex is there")
    if peer and jax.default_backend() != "gpu":
        raise FlowjaxError("--peer flex: FlexAttention is measured on a GPU only")
    prompts = []
    for frames in SHAPES[shape].frames:
        prompts.append(measure(Inputs.random(SHAPES[shape], frames), peer, rounds))
        show(prompts[-1])
    result = {
        "shape": {"name": shape, **dataclasses.asdict(SHAPES[shape])},
        "block_shape": block_shape(SHAPES[shape].width),
        "prompts": prompts,
        **record(
            command_line("kernel", shape=shape, peer=peer, json=json), ("torch",) if peer else ()
        ),
    }
    if json is not None:
        write_result(json, result)


def measure(inputs: Inputs, peer: str | None, rounds: int) -> dict[str, Any]:
    """Times and counts of one prompt length."""
    say(f"{inputs.layout.length} tokens; compiling")
    uncut = np.ones((1, len(inputs.layout.cells), len(inputs.layout.cells)), bool)
    kinds = layer_kinds(inputs.layout)
    tables = [uncut, *(table for _, table in kinds)]
    maps, map_seconds = zip(*map(functools.partial(timed_map, inputs), tables), strict=True)
    work = {"dense": inputs.dense()}
    for index, blocks in enumerate(maps):
        work[f"kernel {index}"] = inputs.pruned(blocks)
    difference = None
    if peer:
        from flowjax_benchmarks.flex_peer import FlexAttention, synchronize  # noqa: PLC0415 - a test extra

        rows = inputs.query, inputs.key, inputs.value
        for index, table in enumerate(tables):
            flex = FlexAttention(*rows, inputs.layout.cell, table)
            work[f"flex {index}"] = Attention(flex, synchronize)
            own = np.asarray(work[f"kernel {index}"].start(), np.float32)
            difference = max(difference or 0.0, float(np.abs(own - flex.output()).max()))
    seconds = alternate(work, inputs.shape.calls, rounds)
    rows = [
        layer_result(layers, maps[index], seconds, index, map_seconds[index])
        for index, (layers, _) in enumerate([([], uncut), *kinds])
    ]
    whole = sum(len(row["layers"]) * row["seconds"] for row in rows)
    return {
        "tokens": inputs.layout.length,
        "seconds_dense": seconds["dense"],
        "uncut": rows[0],
        "kinds": rows[1:],
        "ratio_dense_over_kernel_all_layers": LAYERS * seconds["dense"] / whole,
        "ratio_uncut_over_kernel_all_layers": LAYERS * rows[0]["seconds"] / whole,
        "largest_difference_from_peer": difference,
    }


def timed_map(inputs: Inputs, table: Bool[np.ndarray, "1 g g"]) -> tuple[BlockMap, float]:
    """A block map and the seconds it took."""
    start = time.perf_counter()
    blocks = inputs.blocks(table)
    return blocks, time.perf_counter() - start


def alternate(work: dict[str, Attention], calls: int, rounds: int) -> dict[str, float]:
    """Median seconds of a call of each, one after the other, round after round."""
    for attention in work.values():
        attention.wait(attention.start())
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, attention in work.items():
            start = time.perf_counter()
            attention.wait([attention.start() for _ in range(calls)][-1])
            seconds[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values) for name, values in seconds.items()}


def layer_result(
    layers: list[int], blocks: BlockMap, seconds: dict[str, float], index: int, map_seconds: float
) -> dict[str, Any]:
    """What is reported of one kind of layer."""
    fraction = blocks.kept_blocks / blocks.causal_blocks
    own, dense, flex = (seconds.get(name) for name in (f"kernel {index}", "dense", f"flex {index}"))
    assert own is not None and dense is not None
    return {
        "layers": layers,
        "kept_edges": blocks.kept_edges,
        "kept_blocks": blocks.kept_blocks,
        "partial_blocks": blocks.partial_blocks,
        "causal_blocks": blocks.causal_blocks,
        "kept_block_fraction": fraction,
        "seconds": own,
        "seconds_flex": flex,
        "seconds_block_map": map_seconds,
        "ratio_dense_over_kernel": dense / own,
        "ratio_kernel_over_dense_times_fraction": own / (dense * fraction),
        "ratio_flex_over_kernel": flex / own if flex is not None else None,
    }


def show(prompt: dict[str, Any]) -> None:
    """Print a prompt's main figures."""
    print(f"{prompt['tokens']} tokens: dense {prompt['seconds_dense'] * 1e3:.3f} ms")
    for row in [prompt["uncut"], *prompt["kinds"]]:
        name = f"layers {row['layers'][0]}-{row['layers'][-1]}" if row["layers"] else "uncut"
        flex = "" if row["seconds_flex"] is None else f", flex {row['seconds_flex'] * 1e3:.3f} ms"
        print(
            f"  {name:13} {row['seconds'] * 1e3:9.3f} ms, {row['kept_block_fraction']:6.3f} of "
            f"blocks kept, {row['ratio_kernel_over_dense_times_fraction']:5.2f} x dense x kept"
            + flex
        )
    print(f"  all layers: {prompt['ratio_dense_over_kernel_all_layers']:.2f} x faster than dense")
