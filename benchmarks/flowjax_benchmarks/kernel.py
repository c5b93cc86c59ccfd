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
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention import BlockMap
from flowjax_benchmarks.kernel_bound import bound_of, check
from flowjax_benchmarks.kernel_inputs import Attention, Inputs, Shape
from flowjax_benchmarks.kernel_layers import LAYERS, layer_kinds
from flowjax_benchmarks.record import command_line, record, say, write_result
from flowjax_benchmarks.shape import shape_of

SHAPES = {
    "small": Shape(8, 64, "float32", (8, 32), calls=1),
    "7b": Shape(32, 128, "bfloat16", (8, 32, 113, 226), calls=20),
}


def run(
    shape: str,
    *,
    json: Path | None,
    peer: str | None = None,
    peer_seconds: float = math.inf,
    frames: Sequence[int] = (),
    rounds: int = 5,
) -> None:
    """Measure, print, and write the result, after each prompt.

    Args:
        shape: a name in `SHAPES`.
        json: file of the result.
        peer: "flex" to measure PyTorch's FlexAttention on the same masks too (needs a GPU).
        peer_seconds: after so many of a prompt, no further mask is prepared for the peer.
        frames: of the prompts; the shape's if there are none.
        rounds: times of each attention, of which the median counts.

    Raises:
        FlowjaxError: an unknown shape or peer, or a peer without a GPU.
    """
    if peer not in (None, "flex"):
        raise FlowjaxError(f"--peer {peer!r}: only flex is there")
    if peer and jax.default_backend() != "gpu":
        raise FlowjaxError("--peer flex: FlexAttention is measured on a GPU only")
    chosen = shape_of(SHAPES, shape)
    if frames:
        chosen = dataclasses.replace(chosen, frames=tuple(frames))
    prompts = []
    for count in chosen.frames:
        prompts.append(measure(Inputs.random(chosen, count), peer, peer_seconds, rounds))
        show(prompts[-1])
        if json is not None:
            write_result(json, result_of(chosen, shape, prompts, peer, frames, json))


def result_of(
    chosen: Shape,
    name: str,
    prompts: Sequence[dict[str, Any]],
    peer: str | None,
    frames: Sequence[int],
    json: Path,
) -> dict[str, Any]:
    """What is written."""
    return {
        "shape": {"name": name, **dataclasses.asdict(chosen)},
        "prompts": prompts,
        **record(
            command_line("kernel", shape=name, peer=peer, frames=list(frames), json=json),
            ("torch",) if peer else (),
        ),
    }


def measure(inputs: Inputs, peer: str | None, peer_seconds: float, rounds: int) -> dict[str, Any]:
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
        from flowjax_benchmarks import flex_peer  # noqa: PLC0415 - a test extra

        tables = [table for _, table in kinds]
        prepared = enumerate(flex_peer.attentions(inputs, tables, peer_seconds))
        flex = {f"flex {index}": attention for index, attention in prepared}
        difference = flex_peer.largest_difference(work, flex)
        work |= flex
    seconds = alternate(work, inputs.shape.calls, rounds)
    rows = [
        layer_result(layers, maps[index], seconds, index, map_seconds[index], inputs.rows)
        for index, (layers, _) in enumerate(kinds)
    ]

    def whole(name: str) -> float:
        """Of all layers of the pathway."""
        return sum(len(row["layers"]) * row[name] for row in rows)

    flexible = whole("seconds_flex") if all(row["seconds_flex"] for row in rows) else None
    return {
        "tokens": inputs.layout.length,
        "seconds_dense": seconds["dense"],
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
    arrays: Sequence[Array],
) -> dict[str, Any]:
    """What is reported of one kind of layer."""
    fraction = blocks.kept_blocks / blocks.causal_blocks
    own, dense, flex = (seconds.get(name) for name in (f"kernel {index}", "dense", f"flex {index}"))
    assert own is not None and dense is not None
    bound = bound_of(blocks, arrays, dense)
    check(own, blocks, arrays)
    return {
        "layers": layers,
        "block_shape": [blocks.block_q, blocks.block_k],
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
