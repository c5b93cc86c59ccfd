"""Predicted effects of all knockouts of a prompt, from a few forward and backward passes.

Every edge set, in every layer and head, has a gate (`flowjax.masks.EdgeGates`), open at 1. What is
predicted is the change of the answer's margin f, its logit less that of the best other option.
Where the answer is sure, the gradient of its log-probability vanishes, unlike that of the margin::

    f(g_S = 0) - f(g_S = 1)  ~  - mean over a of df/dg_S      (at all gates = a, for a in `POINTS`)

A gate's derivative holds the knockout's own change of the attention, softmax included (after AtP*,
Kramar et al. 2024, arXiv 2403.00745). What follows is taken to be linear, with the slope of several
points on the way to where all is cut (integrated gradients; EAP-IG, Hanna et al. 2024, arXiv
2403.17806, goes from one input to another). It is a prediction: what it singles out is checked by
exact knockouts (`flowjax_experiments.screen`).

This is attribution patching (Nanda 2023; Syed et al. 2023, arXiv 2310.10348) with a knockout in
place of a patch. Attention is computed again in the backward pass instead of being kept, so memory
beyond the forward's grows with the rows of the prompt, not with their square.
"""

from collections.abc import Collection, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.edges import Edge, count_edges
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeGates
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.padding import GROUP_STEP, LENGTH_STEP, round_up

PARTS = ("system", "video", "instruction", "question", "last")
"""Groups that share no position and leave none out, in every prompt that has them all."""


POINTS = (1.0, 0.75)
"""Gates at which the slope is taken, a forward and a backward pass each.

On the pair that docs/findings.md is about, points further down rank more of the gates worse.
"""


def margin(
    decoder: Decoder,
    prompt: Embedded,
    mask: EdgeGates,
    answer: Int[Array, ""],
    rivals: Bool[Array, " vocabulary"],
) -> Float[Array, ""]:
    """The logit of a token after the last position, less the largest of its rivals'."""
    logits = decoder.last_logits(decoder(prompt, mask).output, prompt)
    return margin_of(logits, answer, rivals)


def margin_of(
    logits: Float[Array, "*batch vocabulary"],
    answer: int | Int[Array, ""],
    rivals: Bool[np.ndarray | Array, " vocabulary"],
) -> Float[Array, " *batch"]:
    """`margin`, of logits."""
    others = jnp.where(jnp.asarray(rivals), logits, -jnp.inf)
    return logits[..., answer] - jnp.max(others, axis=-1)


def rivals_of(
    answer: int, options: Collection[int], vocabulary: int
) -> Bool[np.ndarray, " vocabulary"]:
    """The tokens that an answer is compared with: the other options', or all of an open question.

    Args:
        answer: its token.
        options: tokens of the question's options.
        vocabulary: how many tokens there are.
    """
    rivals = np.ones(vocabulary, bool)
    if set(options) - {answer}:
        rivals[:] = False
        rivals[list(options)] = True
    rivals[answer] = False
    return rivals


@jax.jit
def gradient(
    decoder: Decoder,
    prompt: Embedded,
    group: Int[Array, " n"],
    cut: Bool[Array, "e g g"],
    gates: Float[Array, "layers heads e"],
    answer: Int[Array, ""],
    rivals: Bool[Array, " vocabulary"],
) -> Float[Array, "layers heads e"]:
    """The gradient of the margin by every gate (see `EdgeGates`)."""

    def of(gates: Array) -> Array:
        return margin(decoder, prompt, EdgeGates(group, cut, gates), answer, rivals)

    return jax.grad(of)(gates)


def edge_effects(
    decoder: Decoder,
    embedded: Embedded,
    layout: TokenLayout,
    edges: Sequence[Edge],
    answer: int,
    rivals: Bool[np.ndarray, " vocabulary"],
    *,
    heads: bool,
    points: Sequence[float] = POINTS,
) -> Float[np.ndarray, "layers heads edges"]:
    """The predicted effect of cutting each edge alone, in every layer and head: float32.

    Args:
        decoder: the model's decoder.
        embedded: the prompt.
        layout: its token groups.
        edges: of groups that the layout has.
        answer: token whose margin it is.
        rivals: see `rivals_of`.
        heads: one gate per head; otherwise all heads of a layer share theirs.
        points: see `POINTS`.

    Raises:
        FlowjaxError: the layout lacks a group.
    """
    config, cells = decoder.config, len(layout.cells)
    length = round_up(layout.length, LENGTH_STEP)
    groups, sets = round_up(cells, GROUP_STEP), round_up(len(edges), GROUP_STEP)
    cut = np.zeros((sets, groups, groups), bool)
    cut[: len(edges), :cells, :cells] = [edge.cut(layout) for edge in edges]
    group = jnp.asarray(np.pad(layout.cell, (0, length - layout.length)), jnp.int32)
    prompt, shape = embedded.padded(length), (config.layers, config.heads if heads else 1, sets)
    # Half of an edge is cut once: what `cross_frame` cuts is in `video->video`, too.
    whole = np.array([not edge.across_frames for edge in edges] + [False] * (sets - len(edges)))
    total = np.zeros(shape)
    for point in points:
        gates = jnp.broadcast_to(jnp.asarray(1 - (1 - point) * whole, jnp.float32), shape)
        slope = gradient(
            decoder, prompt, group, jnp.asarray(cut), gates, jnp.asarray(answer, jnp.int32),
            jnp.asarray(rivals),
        )  # fmt: skip
        total -= np.asarray(slope)
    return (total / len(points)).astype(np.float32)[..., : len(edges)]


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
