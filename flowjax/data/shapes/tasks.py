"""The tasks: a scene and a question about it, with balanced answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flowjax.data.prompt import Question
from flowjax.data.shapes import questions as ask
from flowjax.data.shapes.scene import MOST, Scene, Thing, apart
from flowjax.data.shapes.world import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    STILL,
    held_out,
)

FIRST_HALF, SECOND_HALF, WHOLE = (0.08, 0.46), (0.54, 0.92), (0.0, 1.0)
"""When motions begin and end."""


@dataclass(frozen=True)
class Draw:
    """What a scene is made with.

    test: whether the thing that is asked about, if it is not still, has a held-out combination of
        colour, shape and motion; otherwise nothing in the scene has one.
    company: probability of one more thing than the question is about.
    crowd: most things of a scene where all are still and their number is not asked for.
    """

    rng: np.random.Generator
    test: bool
    company: float = 0.5
    crowd: int = MOST

    def one_of(self, names: Sequence[str]) -> str:
        """Any of them."""
        return names[int(self.rng.integers(len(names)))]

    def between(self, low: float, high: float) -> float:
        """A number, evenly distributed."""
        return float(self.rng.uniform(low, high))


def draw_things(draw: Draw, motions: Sequence[tuple[str, tuple[float, float]]]) -> list[Thing]:
    """Things of different colours and shapes with these motions and times, the asked one first."""
    while True:
        things: list[Thing] = []
        for index, (motion, when) in enumerate(motions):
            asked = index == 0
            thing = _draw_thing(draw, motion, when, things, asked=asked, crowd=len(motions))
            if thing is None:
                break
            things.append(thing)
        if len(things) == len(motions):
            return things


def _draw_thing(
    draw: Draw,
    motion: str,
    when: tuple[float, float],
    others: Sequence[Thing],
    *,
    asked: bool,
    crowd: int,
) -> Thing | None:
    """One more thing; None where no place is found for it. In a crowd all are smaller."""
    shapes = [name for name in SHAPES if name not in {thing.shape for thing in others}]
    colours = [name for name in COLOURS if name not in {thing.colour for thing in others}]
    looks = [
        (colour, shape)
        for colour in colours
        for shape in shapes
        if held_out(colour, shape, motion) == (draw.test and asked and motion != STILL)
    ]
    if not looks:
        return None
    colour, shape = looks[int(draw.rng.integers(len(looks)))]
    # Long ways of two things that cross leave no room for both.
    longest = {1: 0.6, 2: 0.4, 3: 0.4}.get(crowd, 0.3)
    largest = 0.15 if crowd < MOST else 0.12
    for _ in range(20):
        span = draw.between(longest - 0.15, longest)
        radius = draw.between(largest - 0.03, largest)
        if motion in ("grow", "shrink"):
            span = draw.between(0.1, 0.14)
        thing = Thing(
            colour,
            shape,
            motion,
            draw.between(0.1, 0.9),
            draw.between(0.1, 0.9),
            radius + (0.02 if motion in ("grow", "shrink") else 0.0),
            span,
            *when,
        )
        if apart(thing, others):
            return thing
    return None


def moving_direction(draw: Draw, answer: int) -> tuple[Scene, ask.Ask]:
    """In which direction one of one or two things moves."""
    motion = list(DIRECTIONS)[answer % 4]
    motions = [(motion, WHOLE)]
    if draw.rng.random() < draw.company:
        other = draw.one_of([STILL, *(name for name in DIRECTIONS if name != motion)])
        motions.append((other, WHOLE))
    things = draw_things(draw, motions)
    return _on_one_background(draw, things), ask.ask_direction(things[0])


def action_sequence(draw: Draw, answer: int) -> tuple[Scene, ask.Ask]:
    """Which of two things moves first."""
    del answer  # the names of the things decide nothing; the place of the true one is balanced
    motions = [(draw.one_of(list(DIRECTIONS)), when) for when in (FIRST_HALF, SECOND_HALF)]
    if draw.rng.random() < 0.5:
        motions.reverse()
    if draw.rng.random() < draw.company:
        motions.append((STILL, WHOLE))
    things = draw_things(draw, motions)
    first, second = sorted(things[:2], key=lambda thing: thing.start)
    return _on_one_background(draw, things), ask.ask_first(first, second)


def action_antonym(draw: Draw, answer: int) -> tuple[Scene, ask.Ask]:
    """Whether a thing grows or shrinks, appears or disappears."""
    motions = [(list(ask.ACTS)[answer % 4], WHOLE)]
    if draw.rng.random() < draw.company:
        motions.append((STILL, WHOLE))
    things = draw_things(draw, motions)
    if things[0].motion in ("appear", "disappear"):
        middle = draw.between(0.3, 0.7)
        things[0] = replace(things[0], start=middle - 0.3, stop=middle + 0.3)
    return _on_one_background(draw, things), ask.ask_act(things[0])


def scene_transition(draw: Draw, answer: int) -> tuple[Scene, ask.Ask]:
    """From which background to which."""
    names = list(BACKGROUNDS)
    pairs = [(one, other) for one in names for other in names if one != other]
    motions = [(draw.one_of([STILL, *DIRECTIONS]), WHOLE)]
    scene = Scene(
        tuple(draw_things(draw, motions)), pairs[answer % len(pairs)], draw.between(0.3, 0.7)
    )
    return scene, ask.ask_transition(scene)


def object_count(draw: Draw, answer: int) -> tuple[Scene, ask.Ask]:
    """How many of four things move."""
    moving = answer % MOST + 1
    motions = [(draw.one_of(list(DIRECTIONS)), WHOLE) for _ in range(moving)]
    motions += [(STILL, WHOLE)] * (MOST - moving)
    things = draw_things(draw, motions)
    scene = _on_one_background(draw, things)
    return scene, ask.ask_moving(scene)


def image_colour(draw: Draw, answer: int) -> tuple[Scene, ask.Ask]:
    """The colour of a thing of a given shape."""
    del answer
    things = _still_things(draw, _number(draw, MOST))
    return _on_one_background(draw, things), ask.ask_colour(things[0], draw.rng)


def image_shape(draw: Draw, answer: int) -> tuple[Scene, ask.Ask]:
    """The shape of a thing of a given colour."""
    while True:
        things = _still_things(draw, _number(draw, MOST))
        if things[0].shape == SHAPES[answer % 4]:
            return _on_one_background(draw, things), ask.ask_shape(things[0])


def image_position(draw: Draw, answer: int) -> tuple[Scene, ask.Ask]:
    """In which quarter of the frame a thing is."""
    while True:
        things = _still_things(draw, _number(draw, MOST - 1))
        if ask.distinct_place(things[0]) and ask.place_of(things[0]) == ask.PLACES[answer % 4]:
            return _on_one_background(draw, things), ask.ask_place(things[0])


def image_count(draw: Draw, answer: int) -> tuple[Scene, ask.Ask]:
    """How many things there are."""
    scene = _on_one_background(draw, _still_things(draw, answer % MOST + 1))
    return scene, ask.ask_number(scene)


def image_background(draw: Draw, answer: int) -> tuple[Scene, ask.Ask]:
    """The colour of the background."""
    things = _still_things(draw, _number(draw, MOST))
    scene = Scene(tuple(things), (list(BACKGROUNDS)[answer % 4],))
    return scene, ask.ask_background(scene)


def _number(draw: Draw, most: int) -> int:
    return int(draw.rng.integers(1, min(most, draw.crowd) + 1))


def _still_things(draw: Draw, count: int) -> list[Thing]:
    return draw_things(draw, [(STILL, WHOLE)] * count)


def _on_one_background(draw: Draw, things: Sequence[Thing]) -> Scene:
    return Scene(tuple(things), (draw.one_of(list(BACKGROUNDS)),))


Task = Callable[[Draw, int], tuple[Scene, ask.Ask]]
"""Makes a scene and a question; equal answers have equal numbers, modulo how many there are."""

VIDEO_TASKS: dict[str, Task] = {
    "moving_direction": moving_direction,
    "action_sequence": action_sequence,
    "action_antonym": action_antonym,
    "scene_transition": scene_transition,
    "object_count": object_count,
}
"""Tasks that need more than one frame, by TVBench's names."""

IMAGE_TASKS: dict[str, Task] = {
    "image_colour": image_colour,
    "image_shape": image_shape,
    "image_position": image_position,
    "image_count": image_count,
    "image_background": image_background,
}
"""Tasks that any frame answers."""

ANSWERS = {"scene_transition": 12}
"""Different answers of a task, where they are not 4."""


def draw_question(task: str, draw: Draw, turn: int) -> tuple[Scene, Question]:
    """The scene and question number `turn` of a task; answers and letters take turns."""
    make = (VIDEO_TASKS | IMAGE_TASKS)[task]
    answers = ANSWERS.get(task, 4)
    scene, (stem, options, true) = make(draw, turn % answers)
    at = (turn // answers) % len(options)
    return scene, ask.multiple_choice(stem, options, true, draw.rng, at)
