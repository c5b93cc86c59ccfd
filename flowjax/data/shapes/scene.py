"""A scene: things on a background, and what they do between time 0 and time 1.

Lengths are in frame sides, x to the right and y downwards. Every motion is as likely as the same
motion backwards, so that no single frame tells which of the two it is from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from flowjax.data.shapes.world import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES

MOST = 4
"""Things in a scene at most."""

MARGIN = 0.02
"""Least distance of things from the border and from each other."""


@dataclass(frozen=True)
class Thing:
    """One coloured shape.

    x, y: its centre in the middle of its motion; radius: half its side, then.
    span: how far it moves in all; for growing and shrinking, how much its radius changes in all.
    start, stop: when its motion begins and ends. It appears or disappears halfway between them.
    """

    colour: str
    shape: str
    motion: str
    x: float
    y: float
    radius: float
    span: float
    start: float
    stop: float

    @property
    def name(self) -> str:
        """Such as "red circle"."""
        return f"{self.colour} {self.shape}"

    @property
    def moves(self) -> bool:
        """Whether it changes its place."""
        return self.motion in DIRECTIONS

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of all it ever covers."""
        step_x, step_y = DIRECTIONS.get(self.motion, (0, 0))
        grown = self.span / 2 if self.motion in ("grow", "shrink") else 0.0
        half_x = abs(step_x) * self.span / 2 + self.radius + grown
        half_y = abs(step_y) * self.span / 2 + self.radius + grown
        return self.x - half_x, self.y - half_y, self.x + half_x, self.y + half_y


@dataclass(frozen=True)
class Scene:
    """Things on a background that may change.

    backgrounds: one, or two with the change at time `change`.
    """

    things: tuple[Thing, ...]
    backgrounds: tuple[str, ...]
    change: float = 1.0


Numbers = np.ndarray | jax.Array


class Tracks(NamedTuple):
    """A scene at some times, as numbers; leading axes are scenes, if any.

    background: 0 to 255, [times, 3]; x, y, radius: [things, times]; visible: 0 or 1,
    [things, times]; shape: index into `SHAPES`; colour: 0 to 255. Things are padded to `MOST`
    with invisible ones.
    """

    background: Float[Numbers, "*scenes times 3"]
    x: Float[Numbers, "*scenes things times"]
    y: Float[Numbers, "*scenes things times"]
    radius: Float[Numbers, "*scenes things times"]
    visible: Float[Numbers, "*scenes things times"]
    shape: Int[Numbers, "*scenes things"]
    colour: Float[Numbers, "*scenes things 3"]


def tracks(scene: Scene, times: Float[np.ndarray, " times"]) -> Tracks:
    """Where everything is at these times, from 0 to 1."""
    count = len(times)
    numbers = np.zeros((4, MOST, count), np.float32)
    numbers[2] = 0.1
    shape, colour = np.zeros(MOST, np.int32), np.zeros((MOST, 3), np.float32)
    for index, thing in enumerate(scene.things):
        done = np.clip((times - thing.start) / (thing.stop - thing.start), 0, 1) - 0.5
        step_x, step_y = DIRECTIONS.get(thing.motion, (0, 0))
        grows = {"grow": 1, "shrink": -1}.get(thing.motion, 0)
        numbers[0, index] = thing.x + step_x * thing.span * done
        numbers[1, index] = thing.y + step_y * thing.span * done
        numbers[2, index] = thing.radius + grows * thing.span * done
        late = done >= 0
        numbers[3, index] = {"appear": late, "disappear": ~late}.get(thing.motion, True)
        shape[index], colour[index] = SHAPES.index(thing.shape), COLOURS[thing.colour]
    first, second = scene.backgrounds[0], scene.backgrounds[-1]
    before = (times < scene.change)[:, None]
    background = np.where(before, BACKGROUNDS[first], BACKGROUNDS[second]).astype(np.float32)
    x, y, radius, visible = numbers
    return Tracks(background, x, y, radius, visible, shape, colour)


def apart(thing: Thing, others: Sequence[Thing]) -> bool:
    """Whether a thing stays inside the frame and clear of the others at all times."""
    left, top, right, bottom = thing.box
    if min(left, top) < MARGIN or max(right, bottom) > 1 - MARGIN:
        return False
    return all(
        right + MARGIN < box[0]
        or box[2] + MARGIN < left
        or bottom + MARGIN < box[1]
        or box[3] + MARGIN < top
        for box in (other.box for other in others)
    )
