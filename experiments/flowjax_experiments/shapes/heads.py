"""Linear readings of tokens that stages are taught with; no model keeps them."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from flowjax.data.shapes.scene import Tracks
from flowjax.data.shapes.world import BACKGROUNDS, COLOURS, SHAPES
from flowjax.train.step import Sums
from flowjax_experiments.shapes.targets import MOTIONS, DenseTargets, Motions, motion_targets

Metrics = dict[str, tuple[Array, Array]]
"""Pairs of a sum and the weight that its mean is over."""


class DenseHeads(nnx.Module):
    """Linear readings of pooled tokens, used in the vision stage only."""

    def __init__(self, width: int, cells: int, rngs: nnx.Rngs) -> None:
        self.thing = nnx.Linear(width, len(COLOURS) * len(SHAPES), rngs=rngs)
        self.colour = nnx.Linear(width, len(COLOURS), rngs=rngs)
        self.shape = nnx.Linear(width, len(SHAPES), rngs=rngs)
        self.place = nnx.Linear(width, 3, rngs=rngs)
        self.background = nnx.Linear(width, len(BACKGROUNDS), rngs=rngs)
        self.cell = nnx.Linear(width, cells * cells, rngs=rngs)

    def sums(self, tokens: Array, targets: DenseTargets) -> Sums:
        """Losses of one scene's frames; tokens [frames, cells, width].

        Metrics are the mean losses, and how often the look, colour and shape of a thing that lies
        mostly in a cell are named right.
        """
        frames = jnp.asarray(float(len(tokens)))
        by_colour = targets.thing.reshape(*targets.thing.shape[:-1], -1, len(SHAPES))
        colours, shapes = jnp.sum(by_colour, -1), jnp.sum(by_colour, -2)
        looks = [
            (self.thing(tokens), targets.thing),
            (self.colour(tokens), colours),
            (self.shape(tokens), shapes),
        ]
        thing = jnp.zeros(tokens.shape[:2])
        for scores, share in looks:
            losses = optax.sigmoid_binary_cross_entropy(scores, jnp.minimum(share, 1))
            thing = thing + jnp.sum(losses, -1)
        there = targets.place[..., 3]
        error = jnp.sum(jnp.abs(self.place(tokens) - targets.place[..., :3]), -1) * there
        place = jnp.sum(error, -1) / jnp.maximum(jnp.sum(there, -1), 1)
        labels = jnp.broadcast_to(targets.background[:, None], tokens.shape[:2])
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        background = cross_entropy(self.background(tokens), labels)
        cells = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape[:2])
        cell = cross_entropy(self.cell(tokens), cells)
        loss = jnp.mean(thing + 0.3 * background + 0.3 * cell, -1) + 5 * place
        mostly = (jnp.max(targets.thing, -1) > 0.5).astype(jnp.float32)
        parts = {"thing": thing, "place": place[:, None], "background": background, "cell": cell}
        metrics = {name: (jnp.sum(jnp.mean(x, -1)), frames) for name, x in parts.items()}
        for name, (scores, share) in zip(("thing", "colour", "shape"), looks, strict=True):
            right = jnp.argmax(scores, -1) == jnp.argmax(share, -1)
            metrics[f"{name}_right"] = (jnp.sum(right * mostly), jnp.sum(mostly))
        return Sums(jnp.sum(loss), frames, metrics)


class MotionHeads(nnx.Module):
    """Readings of video tokens in the middle of the decoder: what has happened there so far.

    motion: what the thing there has begun to do. state: whether it has not begun, is at it, or has
    ended. ground: the first frame's background.
    """

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.motion = nnx.Linear(width, len(MOTIONS), rngs=rngs)
        self.state = nnx.Linear(width, 3, rngs=rngs)
        self.ground = nnx.Linear(width, len(BACKGROUNDS), rngs=rngs)

    def loss(
        self, hidden: Float[Array, "tokens width"], scene: Tracks, motions: Motions, cells: int
    ) -> tuple[Array, Metrics]:
        """The loss of one scene's video tokens, and how often each head is right."""
        hidden = hidden * jax.lax.rsqrt(jnp.mean(hidden**2, -1, keepdims=True) + 1e-5)
        of, everywhere = motion_targets(scene, motions, cells), jnp.ones(len(hidden))
        ground = jnp.broadcast_to(jnp.asarray(motions.ground), len(hidden))
        loss, metrics = jnp.zeros(()), {}
        for name, head, label, told, weight in (
            ("motion", self.motion, of.motion, of.moved, 1.0),
            ("state", self.state, of.state, of.staged, 0.5),
            ("ground", self.ground, ground, everywhere, 0.5),
        ):
            scores, some = head(hidden), told.astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(scores, label)
            # Over as many tokens as tell something in most scenes, so that full ones count more.
            usual = len(hidden) if name == "ground" else len(hidden) / 10
            loss = loss + weight * jnp.sum(losses * some) / usual
            right = jnp.argmax(scores, -1) == label
            metrics[name] = (jnp.sum(right * some), jnp.sum(some))
        return loss, metrics
