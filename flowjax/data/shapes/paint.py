"""Scenes as frames."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from flowjax.data.shapes.scene import Scene, Tracks, tracks


def paint(scene: Tracks, size: int) -> Float[Array, "times size size 3"]:
    """The frames of one scene, 0 to 255, with smooth edges.

    Args:
        scene: without leading axes; `vmap` adds them.
        size: of the frames' sides, in pixels.
    """
    centre = (jnp.arange(size) + 0.5) / size
    frame = jnp.broadcast_to(
        scene.background[:, None, None, :], (len(scene.background), size, size, 3)
    )
    for index in range(scene.shape.shape[0]):
        dx = (centre - scene.x[index][:, None])[:, None, :]
        dy = (centre - scene.y[index][:, None])[:, :, None]
        radius = scene.radius[index][:, None, None]
        outside = _outside(scene.shape[index], dx, dy, radius)
        covered = jnp.clip(0.5 - outside * size, 0, 1) * scene.visible[index][:, None, None]
        frame = frame + covered[..., None] * (scene.colour[index] - frame)
    return frame


def _outside(shape: Array, dx: Array, dy: Array, radius: Array) -> Array:
    """How far a point lies outside the shape's border (negative: inside), about exact near it."""
    across, along = jnp.abs(dx), jnp.abs(dy)
    square = jnp.maximum(across, along) - 0.88 * radius
    circle = jnp.hypot(dx, dy) - radius
    # Point upwards; 0.89 and 0.45 are the cosine and sine of its sides' slope.
    triangle = jnp.maximum(dy - 0.85 * radius, 0.89 * across - 0.45 * dy - 0.42 * radius)
    bar = 0.36 * radius
    cross = jnp.minimum(
        jnp.maximum(across - bar, along - radius), jnp.maximum(along - bar, across - radius)
    )
    every = jnp.stack(jnp.broadcast_arrays(square, circle, triangle, cross))
    return every[shape]


@functools.partial(jax.jit, static_argnames="size")
def _painted(scene: Tracks, size: int) -> Array:
    return jnp.round(paint(scene, size)).astype(jnp.uint8)


def frames(scene: Scene, count: int, size: int) -> UInt8[np.ndarray, "count size size 3"]:
    """A video of `count` frames, the first at time 0 and the last at time 1."""
    return np.asarray(_painted(tracks(scene, np.linspace(0, 1, count, dtype=np.float32)), size))
