"""First-order effects of all knockouts of a prompt, from one forward and one backward pass.

Every edge between two cells, in every layer and head, has a gate (`flowjax.masks.GatedMask`), open
at 1. The answer's log-probability f is a smooth function of the gates g, so cutting an edge set S,
which closes its gates, changes f by about::

    f(g_S = 0) - f(g_S = 1)  ~  - sum over S of df/dg      (at g = 1)

It is a first order: where an edge holds nearly all that a row reads it can say little, and where it
is all that its rows read it says 0, since scaling a row's gates alike changes nothing. What it
singles out is therefore checked by exact knockouts (`flowjax_experiments.screen`).

This is attribution patching (Nanda 2023; Syed et al. 2023, arXiv 2310.10348) with a knockout in
place of a patch. Attention is computed again in the backward pass instead of being kept, so memory
beyond the forward's grows with the rows of the prompt, not with their square.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.edges import Edge, count_edges
from flowjax.layout import TokenLayout
from flowjax.masks import GatedMask
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.padding import GROUP_STEP, LENGTH_STEP, round_up

PARTS = ("system", "video", "instruction", "question", "last")
"""Groups that share no position and leave none out, in every prompt that has them all."""


class GateEffects(NamedTuple):
    """What one gradient says of a prompt.

    logits: float32 [vocabulary], at the last position without knockout.
    effect: float32 [layers, heads or 1, g, g], target cell x source cell: the first-order change of
        the answer's log-probability if the edge between the cells is cut in that layer and head.
    """

    logits: Float[np.ndarray, " vocabulary"]
    effect: Float[np.ndarray, "layers heads g g"]


def gated_log_probability(
    decoder: Decoder,
    prompt: Embedded,
    mask: GatedMask,
    token: Int[Array, ""] | None = None,
) -> tuple[Float[Array, ""], Float[Array, " vocabulary"]]:
    """The log-probability of a token after the last position, and all logits there.

    Args:
        decoder: the model's decoder.
        prompt: with its padding.
        mask: gates float32 [layers, heads or 1, g, g].
        token: None for the most probable one.
    """
    logits = decoder.last_logits(decoder(prompt, mask).output, prompt)
    answer = jnp.argmax(logits) if token is None else token
    return jax.nn.log_softmax(logits)[answer], logits


@jax.jit
def gradient(
    decoder: Decoder,
    prompt: Embedded,
    group: Int[Array, " n"],
    gates: Float[Array, "layers heads g g"],
) -> tuple[Float[Array, " vocabulary"], Float[Array, "layers heads g g"]]:
    """Logits, and the gradient of the answer's log-probability by every gate."""

    def answer(gates: Array) -> tuple[Array, Array]:
        return gated_log_probability(decoder, prompt, GatedMask(group, gates))

    (_, logits), by_gate = jax.value_and_grad(answer, has_aux=True)(gates)
    return logits, by_gate


def gate_effects(
    decoder: Decoder, embedded: Embedded, layout: TokenLayout, *, heads: bool
) -> GateEffects:
    """The first-order effect of cutting every edge between two cells, in every layer.

    Args:
        decoder: the model's decoder.
        embedded: the prompt.
        layout: its token groups.
        heads: one gate per head; otherwise all heads of a layer share theirs.
    """
    config, cells = decoder.config, len(layout.cells)
    length = round_up(layout.length, LENGTH_STEP)
    groups = round_up(cells, GROUP_STEP)
    group = jnp.asarray(np.pad(layout.cell, (0, length - layout.length)), jnp.int32)
    gates = jnp.ones((config.layers, config.heads if heads else 1, groups, groups), jnp.float32)
    logits, by_gate = jax.device_get(gradient(decoder, embedded.padded(length), group, gates))
    return GateEffects(np.asarray(logits), -np.asarray(by_gate)[..., :cells, :cells])


def edge_effects(
    effects: GateEffects, layout: TokenLayout, edges: Iterable[Edge]
) -> Float[np.ndarray, "layers heads edges"]:
    """The first-order effect of cutting each edge alone: the sum over the gates it closes.

    Raises:
        FlowjaxError: the layout lacks a group.
    """
    cut = np.stack([edge.cut(layout) for edge in edges]).astype(np.float64)
    return np.einsum("lhts,ets->lhe", effects.effect.astype(np.float64), cut)


def edges_between(layout: TokenLayout, groups: Sequence[str]) -> tuple[Edge, ...]:
    """Every edge from one of the groups to another or itself that causality allows.

    Groups that the layout lacks are left out. `cross_frame`, a part of `video->video`, comes first
    where there are several frames and `video` is among the groups.
    """
    there = [name for name in groups if name in layout.groups]
    edges = [Edge(source, target) for source in there for target in there]
    if "video" in there:
        edges.insert(0, Edge.CROSS_FRAME)
    return tuple(edge for edge in edges if count_edges(layout, edge.cut(layout)))
