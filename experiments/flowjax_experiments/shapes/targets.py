"""What tokens of a scene should tell."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.data.shapes.scene import MOST, Numbers, Scene, Tracks
from flowjax.data.shapes.world import BACKGROUNDS, COLOURS, DIRECTIONS, OPPOSITE, SHAPES

MOTIONS = (*DIRECTIONS, *(name for name in OPPOSITE if name not in DIRECTIONS))
"""What a thing that is not still may do; changes of place come first."""


class DenseTargets(NamedTuple):
    """What every pooled token of a frame should tell, [..., cells, ...].

    thing: share of a thing of each colour and shape that lies in the cell, 24 of them.
    place: x, y and radius of the thing that lies in it most, and whether there is one.
    background: index of the background colour.
    """

    thing: Float[Array, "*frames cells 24"]
    place: Float[Array, "*frames cells 4"]
    background: Int[Array, "*frames"]


def shares(scene: Tracks, cells: int) -> Float[Array, "things times cells"]:
    """Of every thing's bounding box, the share that lies in each cell of a grid, row by row."""
    low = jnp.arange(cells) / cells
    high = low + 1 / cells
    side = 2 * scene.radius[..., None]

    def overlap(centre: Numbers) -> Array:
        start, stop = centre[..., None] - side / 2, centre[..., None] + side / 2
        return jnp.clip(jnp.minimum(stop, high) - jnp.maximum(start, low), 0) / side

    share = overlap(scene.y)[..., :, None] * overlap(scene.x)[..., None, :]
    share = share * scene.visible[..., None, None]
    return share.reshape(*share.shape[:-2], -1)


def dense_targets(scene: Tracks, cells: int) -> DenseTargets:
    """The targets of one scene's frames, on a grid of `cells` times `cells`."""
    share = shares(scene, cells)
    palette = jnp.asarray(list(COLOURS.values()), jnp.float32)
    colour = jnp.argmin(jnp.sum((scene.colour[:, None] - palette) ** 2, -1), -1)
    kind = jax.nn.one_hot(colour * len(SHAPES) + scene.shape, len(COLOURS) * len(SHAPES))
    thing = jnp.einsum("ktc,kf->tcf", share, kind)
    most = jnp.argmax(share, axis=0)

    def of_most(values: Numbers) -> Array:
        return jnp.take_along_axis(jnp.asarray(values).T, most, axis=1)

    there = jnp.max(share, axis=0) > 0.15
    place = jnp.stack(
        [of_most(scene.x), of_most(scene.y), of_most(scene.radius), there.astype(jnp.float32)], -1
    )
    grounds = jnp.asarray(list(BACKGROUNDS.values()), jnp.float32)
    background = jnp.argmin(jnp.sum((scene.background[:, None] - grounds) ** 2, -1), -1)
    return DenseTargets(thing, place, background)


class Motions(NamedTuple):
    """What happens in a scene by the times of its frames; leading axes are scenes, if any.

    kind: index into `MOTIONS`, -1 of what is still. done: the share of its motion that is over,
    below 0 before it and above 1 after it; -1 of what is still. ground: index of the first
    background.
    """

    kind: Int[Numbers, "*scenes things"]
    done: Float[Numbers, "*scenes things times"]
    ground: Int[Numbers, "*scenes"]


def motions(scene: Scene, times: Float[np.ndarray, " times"]) -> Motions:
    """What happens in one scene, its things padded to `MOST` with still ones."""
    kind, done = np.full(MOST, -1, np.int32), np.full((MOST, len(times)), -1, np.float32)
    for index, thing in enumerate(scene.things):
        if thing.motion in MOTIONS:
            kind[index] = MOTIONS.index(thing.motion)
            done[index] = (times - thing.start) / (thing.stop - thing.start)
            if thing.motion in ("appear", "disappear"):
                done[index] = done[index] >= 0.5
    return Motions(kind, done, np.array(list(BACKGROUNDS).index(scene.backgrounds[0]), np.int32))


class MotionTargets(NamedTuple):
    """What every video token should tell of the thing that lies in its cell, [tokens].

    motion: index into `MOTIONS`, what it has begun to do. state: 0 if it has not begun, 1 while it
    moves, 2 when it has ended. moved, staged: whether these are told of the token at all.
    """

    motion: Int[Array, " tokens"]
    moved: Bool[Array, " tokens"]
    state: Int[Array, " tokens"]
    staged: Bool[Array, " tokens"]


def motion_targets(scene: Tracks, motions: Motions, cells: int) -> MotionTargets:
    """The targets of one scene's video tokens, frame by frame; none where no thing mostly lies."""
    kind, acts = jnp.asarray(motions.kind), (jnp.asarray(motions.kind) >= 0)[:, None]
    gone = (kind == MOTIONS.index("disappear"))[:, None]
    # What has disappeared is told where it was.
    share = shares(scene._replace(visible=jnp.where(gone, 1, jnp.asarray(scene.visible))), cells)
    share = jnp.minimum(share / jnp.maximum(jnp.max(share, -1, keepdims=True), 0.25), 1)
    done = jnp.clip(jnp.asarray(motions.done), 0, 1)
    told = (jnp.clip((done - 0.05) / 0.2, 0, 1) * acts)[..., None]
    kinds = told * jax.nn.one_hot(kind, len(MOTIONS))[:, None]
    there = jnp.max(jnp.asarray(scene.visible), -1, keepdims=True)
    before = jnp.where(acts, jnp.clip(1 - done / 0.1, 0, 1), there)
    moving = acts & (kind < len(DIRECTIONS))[:, None]
    during = moving & (motions.done > 0.1) & (motions.done <= 1)
    states = jnp.stack([before, during, acts & (motions.done > 1)], -1)

    def of(values: Array) -> Array:
        found = jnp.einsum("itc,itf->tcf", share, values)
        return found.reshape(-1, found.shape[-1])

    kinds, states = of(kinds), of(states)
    return MotionTargets(
        jnp.argmax(kinds, -1),
        jnp.max(kinds, -1) > 0.5,
        jnp.argmax(states, -1),
        jnp.max(states, -1) > 0.6,
    )
