"""The pruned-attention kernel beside dense attention, on the strict 7B pathway, in one process.

    flowjax bench kernel --shape small --json benchmarks/results/kernel-cpu.json
    flowjax bench kernel --shape 7b --peer flex --json benchmarks/results/kernel-h100.json

All rows of a prompt attend, in each kind of layer that the pathway has. `dense` is
`jax.nn.dot_product_attention` (cuDNN on a GPU), `uncut` our kernel where no edge is cut. Every
round runs all of them, so that all see the same machine. Times are compared with a bound
(`kernel_bound`): the share of dense attention that the kept blocks would take, or reading queries,
keys and values and writing the output once, whichever is longer.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention import (
    BlockMap,
    block_map,
    block_shape,
    pruned_attention,
    stack_maps,
)
from flowjax.layout import TokenLayout
from flowjax_benchmarks.kernel_bound import Bound, bound_of, memory_seconds
from flowjax_benchmarks.kernel_layers import LAYERS, layer_kinds
from flowjax_benchmarks.record import command_line, record, say, write_result
from flowjax_benchmarks.sweep import prompt_layout

TOKENS_PER_FRAME = 144


@dataclass(frozen=True)
class Shape:
    """What is measured on.

    calls: one after the other in one program for one time, so that starting it costs little.
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

    def maps(
        self, tables: Sequence[Bool[np.ndarray, "1 g g"]]
    ) -> tuple[list[BlockMap], list[BlockMap], list[float]]:
        """Layers' maps, the same of one size on the device, and the seconds each took to build."""
        maps, seconds = zip(*map(self._timed_map, tables), strict=True)
        stacked = stack_maps(maps)
        same = [
            jax.tree.map(lambda leaf, index=index: jnp.asarray(leaf[index]), stacked)
            for index in range(len(maps))
        ]
        return list(maps), same, list(seconds)

    def _timed_map(self, table: Bool[np.ndarray, "1 g g"]) -> tuple[BlockMap, float]:
        start = time.perf_counter()
        blocks = self.blocks(table)
        return blocks, time.perf_counter() - start

    @functools.cached_property
    def pruned(self) -> Callable[[BlockMap], Array]:
        """The kernel that the default takes, as one program for maps of one size."""
        position = jnp.asarray(self.position)

        def attention(query: Array, key: Array, value: Array, blocks: BlockMap) -> Array:
            return pruned_attention(
                query,
                key,
                value,
                query_position=position,
                key_position=position,
                blocks=blocks,
            )

        return functools.partial(repeated(attention, self.shape.calls), *self.rows)

    @property
    def dense(self) -> Callable[[], Array]:
        """JAX's causal attention; cuDNN's on a GPU."""

        def attention(query: Array, key: Array, value: Array) -> Array:
            return jax.nn.dot_product_attention(
                query[None],
                key[None],
                value[None],
                is_causal=True,
                implementation="cudnn" if jax.default_backend() == "gpu" else None,
            )[0]

        return functools.partial(repeated(attention, self.shape.calls), *self.rows)

    @property
    def rows(self) -> tuple[Array, Array, Array]:
        """Query, key and value."""
        return self.query, self.key, self.value


def repeated(attention: Callable[..., Array], calls: int) -> Callable[..., Array]:
    """A program of calls one after the other; its result is the last one's."""

    def run(query: Array, key: Array, value: Array, *rest: BlockMap) -> Array:
        def step(_: int, before: Array) -> Array:
            return call(before)[0, 0, 0]

        def call(before: Array) -> Array:
            # It reads what the call before wrote, as far as the compiler knows.
            *rows, _ = jax.lax.optimization_barrier((query, key, value, before))
            return attention(*rows, *rest)

        return call(jax.lax.fori_loop(1, calls, step, query[0, 0, 0]))

    return jax.jit(run)


def run(
    shape: str,
    *,
    json: Path | None,
    peer: str | None = None,
    frames: Sequence[int] = (),
    rounds: int = 5,
) -> None:
    """Measure, print, and write the result.

    Args:
        shape: a name in `SHAPES`.
        json: file of the result.
        peer: "flex" to measure PyTorch's FlexAttention on the same masks too (needs a GPU).
        frames: of the prompts; the shape's if there are none.
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
    chosen = SHAPES[shape]
    if frames:
        chosen = dataclasses.replace(chosen, frames=tuple(frames))
    prompts = []
    for count in chosen.frames:
        prompts.append(measure(Inputs.random(chosen, count), peer, rounds))
        show(prompts[-1])
    result = {
        "shape": {"name": shape, **dataclasses.asdict(chosen)},
        "block_shape": block_shape(chosen.width),
        "prompts": prompts,
        **record(
            command_line("kernel", shape=shape, peer=peer, frames=list(frames), json=json),
            ("torch",) if peer else (),
        ),
    }
    if json is not None:
        write_result(json, result)


def measure(inputs: Inputs, peer: str | None, rounds: int) -> dict[str, Any]:
    """Times and counts of one prompt length."""
    say(f"{inputs.layout.length} tokens; compiling")
    uncut = np.ones((1, len(inputs.layout.cells), len(inputs.layout.cells)), bool)
    kinds = [([], uncut), *layer_kinds(inputs.layout)]
    maps, same, map_seconds = inputs.maps([table for _, table in kinds])
    work = {"dense": Attention(inputs.dense)}
    for index, blocks in enumerate(same):
        work[f"kernel {index}"] = Attention(functools.partial(inputs.pruned, blocks))
    difference = None
    if peer:
        from flowjax_benchmarks.flex_peer import FlexAttention, synchronize  # noqa: PLC0415 - a test extra

        difference = 0.0
        for index, (_, table) in enumerate(kinds):
            flex = FlexAttention(*inputs.rows, inputs.layout.cell, table, calls=inputs.shape.calls)
            work[f"flex {index}"] = Attention(flex, synchronize)
            own = np.asarray(work[f"kernel {index}"].start(), np.float32)
            difference = max(difference, float(np.abs(own - flex.output()).max()))
    seconds = alternate(work, inputs.shape.calls, rounds)
    memory = memory_seconds(inputs.rows)
    rows = [
        layer_result(layers, maps[index], seconds, index, map_seconds[index], memory)
        for index, (layers, _) in enumerate(kinds)
    ]

    def whole(name: str) -> float:
        """Of all layers of the pathway."""
        return sum(len(row["layers"]) * row[name] for row in rows)

    flexible = whole("seconds_flex") if peer else None
    return {
        "tokens": inputs.layout.length,
        "seconds_dense": seconds["dense"],
        "seconds_memory": memory,
        "uncut": rows[0],
        "kinds": rows[1:],
        "seconds_all_layers": whole("seconds"),
        "ratio_dense_over_kernel_all_layers": LAYERS * seconds["dense"] / whole("seconds"),
        "ratio_uncut_over_kernel_all_layers": LAYERS * rows[0]["seconds"] / whole("seconds"),
        "ratio_flex_over_kernel_all_layers": flexible and flexible / whole("seconds"),
        "ratio_kernel_over_bound_all_layers": whole("seconds") / whole("seconds_bound"),
        "ratio_kernel_over_aim_all_layers": whole("seconds") / whole("seconds_aim"),
        "largest_difference_from_peer": difference,
    }


def alternate(work: dict[str, Attention], calls: int, rounds: int) -> dict[str, float]:
    """Median seconds of a call of each, one after the other, round after round."""
    for attention in work.values():
        attention.wait(attention.start())
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, attention in work.items():
            start = time.perf_counter()
            attention.wait(attention.start())
            seconds[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values) for name, values in seconds.items()}


def layer_result(
    layers: list[int],
    blocks: BlockMap,
    seconds: dict[str, float],
    index: int,
    map_seconds: float,
    memory: float | None,
) -> dict[str, Any]:
    """What is reported of one kind of layer."""
    fraction = blocks.kept_blocks / blocks.causal_blocks
    own, dense, flex = (seconds.get(name) for name in (f"kernel {index}", "dense", f"flex {index}"))
    assert own is not None and dense is not None
    bound: Bound = bound_of(fraction, dense, memory)
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
        "seconds_bound": bound.seconds,
        "seconds_aim": bound.aim,
        "bound_by": bound.by,
        "ratio_dense_over_kernel": dense / own,
        "ratio_kernel_over_dense_times_fraction": own / (dense * fraction),
        "ratio_kernel_over_bound": own / bound.seconds,
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
            f"blocks kept, {row['ratio_kernel_over_bound']:5.2f} x bound "
            f"({row['seconds_bound'] * 1e3:.3f} ms, {row['bound_by']})" + flex
        )
    ratios = {
        "x faster than dense": prompt["ratio_dense_over_kernel_all_layers"],
        "x faster than flex": prompt["ratio_flex_over_kernel_all_layers"],
        "x the bound": prompt["ratio_kernel_over_bound_all_layers"],
        "x the aim": prompt["ratio_kernel_over_aim_all_layers"],
    }
    said = ", ".join(f"{value:.2f} {name}" for name, value in ratios.items() if value is not None)
    print(f"  all layers: {prompt['seconds_all_layers'] * 1e3:.3f} ms, {said}", flush=True)
