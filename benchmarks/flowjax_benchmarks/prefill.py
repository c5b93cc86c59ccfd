"""Prefill in full, masked, and compiled to a pathway's live rows, in one process.

    flowjax bench prefill --json benchmarks/results/prefill-cpu.json

All contenders run on the same random weights and embeddings, one after the other in every round,
so that they see the same machine. "Full" is the fastest causal prefill there is here: dense
attention (on a GPU cuDNN's through `jax.nn.dot_product_attention`, else in chunks that skip what
causality forbids), or the compiled prefill without a pathway. All keep what decoding reads.
"""

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowjax.compilation import memory_of
from flowjax.edges import edge_mask
from flowjax.inference.compile import Compiled, compile_pathway
from flowjax.inference.cost import Costs, PrefillCost, costs
from flowjax.inference.prefill import lower_prefill
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeMask
from flowjax.models.attention import CHUNK, Sources, attend_causal
from flowjax.models.decoder import Decoder, DecoderConfig, DecoderLayer
from flowjax.models.embedded import Embedded
from flowjax.models.stack import layer_at
from flowjax.pathway import FORMS, default_pathway
from flowjax_benchmarks.record import command_line, record, say, write_result
from flowjax_benchmarks.shape import random_decoder, shape_of
from flowjax_benchmarks.sweep import decoder_config, prompt_layout


@dataclass(frozen=True)
class Shape:
    """A decoder and the numbers of frames to measure on.

    frames: of 144 tokens each, with 120 tokens of text.
    """

    config: DecoderConfig
    dtype: str
    frames: tuple[int, ...]
    tokens_per_frame: int = 144


SHAPES = {
    "small": Shape(decoder_config(12, 512, 8, 1376), "float32", (8, 32)),
    "7b": Shape(decoder_config(32, 4096, 32, 11008), "bfloat16", (8, 32, 112, 226)),
}
PATHWAY_OF = "pllava"
"""The family whose pathway is measured: that of the 7B model, scaled to the decoder's depth."""

Attention = Literal["chunks", "cudnn"]


@functools.partial(jax.jit, static_argnames=("attention", "masked"))
def dense(
    decoder: Decoder,
    embedded: Embedded,
    group: Array,
    allowed: Array,
    *,
    attention: Attention,
    masked: bool,
) -> tuple[Array, Array, Array]:
    """Every row of every layer: logits after the prompt, and all keys and values.

    masked: whether cuDNN is given the mask written out; chunks always apply it.
    """
    mask = EdgeMask(group, allowed)
    position = jnp.arange(len(embedded.x), dtype=jnp.int32)
    rotary = decoder.config.rope(embedded.rope_position, len(embedded.x))
    window = decoder.config.window

    def step(x: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
        layer: DecoderLayer = layer_at(decoder.layers, index)
        own, query = layer.sources(x, position, rotary), layer.queries(x, rotary)
        if attention == "chunks":
            attended = attend_causal(query, own, [], mask.at(index), CHUNK, window)
        else:
            attended = cudnn(query, own, mask.at(index) if masked else None, window)
        return layer.finish(x, attended), (own.key, own.value)

    x, (key, value) = jax.lax.scan(step, embedded.x, jnp.arange(decoder.config.layers))
    return decoder.logits(x[-1:])[0], key, value


def cudnn(query: Array, own: Sources, mask: EdgeMask | None, window: int | None) -> Array:
    """cuDNN's fused attention, causal, and with a dense mask or a window where one is given."""
    allowed = None if mask is None else mask.rows(own.position, own.position)[None]
    return jax.nn.dot_product_attention(
        query[None], own.key[None], own.value[None], mask=allowed, is_causal=True,
        local_window_size=None if window is None else (window - 1, 0), implementation="cudnn",
    )[0]  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """A compiled program and its arguments."""

    program: jax.stages.Compiled
    arguments: tuple

    def run(self) -> tuple[float, np.ndarray]:
        """Seconds, and the logits."""
        start = time.perf_counter()
        out = jax.block_until_ready(self.program(*self.arguments))
        return time.perf_counter() - start, np.asarray(out[0])

    @property
    def bytes(self) -> int:
        """Temporaries and results, beside parameters and embeddings."""
        memory = memory_of(self.program)
        return memory.temp_size_in_bytes + memory.output_size_in_bytes


@dataclass(frozen=True, eq=False)
class Setting:
    """One prompt on one decoder."""

    decoder: Decoder
    embedded: Embedded
    layout: TokenLayout

    def compiled(self, form: str | None) -> Compiled:
        """The pathway in one of its forms, or none."""
        config = self.decoder.config
        if form is None:
            return compile_pathway(self.layout, (), config)
        pathway = default_pathway(PATHWAY_OF, config.layers, form)
        return compile_pathway(self.layout, pathway.knockouts(self.layout), config)

    def costs(self, form: str) -> Costs:
        """What a form costs beside full prefill."""
        return costs(
            self.layout,
            self.compiled(form),
            self.decoder.config,
            value_bytes=self.embedded.x.dtype.itemsize,
        )

    def dense(self, form: str | None) -> Contender:
        """Every row, under a form's mask or none."""
        config = self.decoder.config
        attention: Attention = "cudnn" if jax.default_backend() == "gpu" else "chunks"
        cut = ()
        if form is not None:
            cut = default_pathway(PATHWAY_OF, config.layers, form).knockouts(self.layout)
        mask = edge_mask(self.layout, cut, layers=config.layers, heads=config.heads)
        arguments = (self.decoder, self.embedded, mask.group, mask.allowed)
        program = dense.lower(*arguments, attention=attention, masked=form is not None).compile()
        return Contender(program, arguments)

    def pruned(self, form: str | None) -> Contender:
        """Live rows of a form, or all that causal prefill needs."""
        lowered, pathway = lower_prefill(self.decoder, self.embedded, self.compiled(form))
        return Contender(lowered.compile(), (self.decoder, self.embedded, pathway))


def setting(decoder: Decoder, frames: int, shape: Shape) -> Setting:
    """Random embeddings of a prompt."""
    layout = prompt_layout(frames, shape.tokens_per_frame)
    x = jax.random.normal(jax.random.key(1), (layout.length, shape.config.width), shape.dtype)
    return Setting(decoder, Embedded.of(x), layout)


def run(shape: str, *, json: Path | None, rounds: int = 7) -> None:
    """Measure, print, and write the result.

    Args:
        shape: a name in `SHAPES`; "7b" is for a GPU with 40 GB.
        json: file of the result.
        rounds: of all contenders, whose median counts.

    Raises:
        FlowjaxError: an unknown shape.
    """
    chosen = shape_of(SHAPES, shape)
    config = chosen.config
    decoder = random_decoder(config, chosen.dtype)
    prompts = []
    for frames in chosen.frames:
        prompts.append({"frames": frames, **measure(setting(decoder, frames, chosen), rounds)})
        show(prompts[-1])
    result = {
        "prompts": prompts,
        "shape": {
            "name": shape,
            "layers": config.layers,
            "width": config.width,
            "heads": config.heads,
            "mlp_width": config.mlp_width,
            "dtype": chosen.dtype,
            "tokens_per_frame": chosen.tokens_per_frame,
            "pathway": default_pathway(PATHWAY_OF, config.layers, "strict").name,
        },
        "rounds": rounds,
        **record(command_line("prefill", shape=shape, json=json)),
    }
    if json is not None:
        write_result(json, result)


def measure(chosen: Setting, rounds: int) -> dict[str, Any]:
    """All contenders on one prompt, alternating; each has run once before."""
    say(f"{chosen.layout.length} positions; compiling")
    contenders = {"full_dense": chosen.dense(None), "full_blocks": chosen.pruned(None)}
    contenders |= {f"masked_{form}": chosen.dense(form) for form in FORMS}
    contenders |= {f"compiled_{form}": chosen.pruned(form) for form in FORMS}
    logits = {name: contender.run()[1] for name, contender in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds):
        say(f"round {index + 1} of {rounds}")
        for name, contender in contenders.items():
            times[name].append(contender.run()[0])
    host = [seconds_of(lambda: chosen.compiled("strict")) for _ in range(rounds)]
    seconds = {name: statistics.median(values) for name, values in times.items()}
    full = min(("full_dense", "full_blocks"), key=seconds.__getitem__)
    forms = {
        form: {
            "ratio_full_over_compiled": seconds[full] / seconds[f"compiled_{form}"],
            "ratio_full_over_masked": seconds[full] / seconds[f"masked_{form}"],
            **shares(chosen.costs(form)),
            "memory_fraction": contenders[f"compiled_{form}"].bytes / contenders[full].bytes,
            "largest_difference_of_logits": float(
                np.abs(logits[f"masked_{form}"] - logits[f"compiled_{form}"]).max()
            ),
        }
        for form in FORMS
    }
    return {
        "positions": chosen.layout.length,
        **forms["strict"],
        "paper": forms["paper"],
        "full": full,
        "block_maps_over_full": statistics.median(host) / seconds[full],
        "seconds": seconds,
        "all_seconds": times,
        "memory_bytes_beside_parameters": {
            name: contender.bytes for name, contender in contenders.items()
        },
    }


def shares(cost: Costs) -> dict[str, float]:
    """A pathway's counts as fractions of full prefill's."""

    def share(count: Callable[[PrefillCost], int]) -> float:
        return count(cost.compiled) / count(cost.full)

    return {
        "kv_cache_fraction": share(lambda cost: cost.cache_bytes),
        "kept_edges": cost.kept_edges,
        "computed_edges": share(lambda cost: cost.edges),
        "kept_blocks": share(lambda cost: cost.blocks),
        "flops": share(lambda cost: cost.flops),
    }


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that some work on the host takes."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def show(result: Mapping[str, Any]) -> None:
    """Print one prompt's figures."""
    print(f"\n{result['frames']} frames, {result['positions']} positions")
    for name, value in result["seconds"].items():
        memory = result["memory_bytes_beside_parameters"][name]
        print(f"{name:16} {value:9.4f} s {memory / 1e6:10.1f} MB beside the parameters")
    for form, figures in (("strict", result), ("paper", result["paper"])):
        for name in (
            "ratio_full_over_compiled",
            "ratio_full_over_masked",
            "kv_cache_fraction",
            "kept_edges",
            "kept_blocks",
            "memory_fraction",
        ):
            print(f"{form:7} {name:26} {figures[name]:8.3f}")
    print(f"block maps: {result['block_maps_over_full']:.1%} of a full prefill, on the host")
