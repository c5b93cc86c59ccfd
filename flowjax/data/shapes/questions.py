"""What can be asked about a scene, and sentences that describe it."""

from collections.abc import Callable, Sequence

import numpy as np

from flowjax.data.prompt import LETTERS, Question
from flowjax.data.shapes.scene import Scene, Thing
from flowjax.data.shapes.world import BACKGROUNDS, COLOURS, OPPOSITE, SHAPES, STILL

NUMBERS = ("one", "two", "three", "four")
ACTS = {
    "grow": "it grows",
    "shrink": "it shrinks",
    "appear": "it appears",
    "disappear": "it disappears",
}
PLACES = ("top left", "top right", "bottom left", "bottom right")


def multiple_choice(
    stem: str, options: Sequence[str], true: str, rng: np.random.Generator, at: int | None = None
) -> Question:
    """A question with its options in random order, the true one at place `at` if that is given."""
    wrong = [option for option in options if option != true]
    order = [wrong[index] for index in rng.permutation(len(wrong))]
    place = int(rng.integers(len(options))) if at is None else at
    order.insert(place, true)
    return Question(stem, tuple(order), LETTERS[place])


Ask = tuple[str, tuple[str, ...], str]
"""A question's stem, its options in no particular order, and the text of the true one."""


def ask_direction(thing: Thing) -> Ask:
    """Of a thing that moves; the other option is the opposite, which the same frames in another
    order would show.
    """
    options = thing.motion, OPPOSITE[thing.motion]
    return f"In which direction does the {thing.name} move?", options, thing.motion


def ask_first(first: Thing, second: Thing) -> Ask:
    """Of two things of which one moves after the other."""
    names = f"the {first.name}", f"the {second.name}"
    return "Which object moves first?", names, names[0]


def ask_act(thing: Thing) -> Ask:
    """Of a thing that grows, shrinks, appears or disappears."""
    options = ACTS[thing.motion], ACTS[OPPOSITE[thing.motion]]
    return f"What does the {thing.name} do?", options, options[0]


def ask_transition(scene: Scene) -> Ask:
    """Of a scene whose background changes."""
    first, second = scene.backgrounds
    options = f"from {first} to {second}", f"from {second} to {first}"
    return "How does the background change?", options, options[0]


def ask_moving(scene: Scene) -> Ask:
    """How many things move, from one to four."""
    return "How many objects move?", NUMBERS, NUMBERS[sum(t.moves for t in scene.things) - 1]


def ask_colour(thing: Thing, rng: np.random.Generator) -> Ask:
    """Of a thing whose shape no other has."""
    others = [colour for colour in COLOURS if colour != thing.colour]
    chosen = [others[index] for index in rng.permutation(len(others))[:3]]
    return f"What colour is the {thing.shape}?", (thing.colour, *chosen), thing.colour


def ask_shape(thing: Thing) -> Ask:
    """Of a thing whose colour no other has."""
    return f"What shape is the {thing.colour} object?", SHAPES, thing.shape


def ask_place(thing: Thing) -> Ask:
    """Of a thing in one quarter of the frame."""
    return f"Where is the {thing.name}?", PLACES, place_of(thing)


def ask_number(scene: Scene) -> Ask:
    """How many things there are."""
    return "How many objects are there?", NUMBERS, NUMBERS[len(scene.things) - 1]


def ask_background(scene: Scene) -> Ask:
    """Of a scene whose background does not change."""
    return "What colour is the background?", tuple(BACKGROUNDS), scene.backgrounds[0]


def place_of(thing: Thing) -> str:
    """The quarter of the frame that a thing's centre lies in."""
    return f"{'top' if thing.y < 0.5 else 'bottom'} {'left' if thing.x < 0.5 else 'right'}"


def caption(scene: Scene) -> str:
    """Sentences that say all that happens in a scene, its things in the order of their colours."""
    first, last = scene.backgrounds[0], scene.backgrounds[-1]
    changes = len(scene.backgrounds) > 1
    ground = f"changes from {first} to {last}" if changes else f"is {first}"
    parts = [f"the background {ground}"]
    order = list(COLOURS)
    things = sorted(scene.things, key=lambda thing: (thing.start, order.index(thing.colour)))
    parts += [f"the {thing.name} {_does(thing)}" for thing in things]
    return (
        ", then ".join([", ".join(parts[:-1]), parts[-1]]) if _staged(things) else ", ".join(parts)
    )


def _does(thing: Thing) -> str:
    if thing.moves:
        return f"moves {thing.motion}"
    if thing.motion in ACTS:
        return ACTS[thing.motion].removeprefix("it ")
    return f"is at the {place_of(thing)}"


def _staged(things: Sequence[Thing]) -> bool:
    """Whether the last thing begins after another has ended."""
    return any(thing.moves and thing.stop <= things[-1].start for thing in things[:-1])


def every_question(scene: Scene, rng: np.random.Generator) -> list[Ask]:
    """All that can be asked about a scene without ambiguity."""
    asks: list[Ask] = []
    things = scene.things
    makers: list[tuple[bool, Callable[[], Ask]]] = [
        (len(scene.backgrounds) > 1, lambda: ask_transition(scene)),
        (len(scene.backgrounds) == 1, lambda: ask_background(scene)),
        (any(thing.moves for thing in things), lambda: ask_moving(scene)),
    ]
    asks += [make() for holds, make in makers if holds]
    for thing in things:
        if thing.moves:
            asks.append(ask_direction(thing))
        elif thing.motion in ACTS:
            asks.append(ask_act(thing))
        elif distinct_place(thing):
            asks.append(ask_place(thing))
        asks += [ask_colour(thing, rng), ask_shape(thing)]
    if all(thing.motion not in ("appear", "disappear") for thing in things):
        asks.append(ask_number(scene))
    movers = [thing for thing in things if thing.moves]
    asks += [ask_first(one, other) for one in movers for other in movers if one.stop <= other.start]
    return asks


def ask_states(scene: Scene) -> list[Ask]:
    """Whether single things move, and where one moves after another, which of them they are.

    Steps towards the order and the number of moving things; no task of the benchmark asks them.
    """
    movers = [thing for thing in scene.things if thing.moves]
    staged = any(one.stop <= other.start for one in movers for other in movers)
    start = min((thing.start for thing in movers), default=0.0)
    asks: list[Ask] = []
    for thing in scene.things if movers else ():
        if thing.moves and staged:
            options = "it moves first", "it moves then"
            true = options[thing.start > start]
        elif thing.moves or thing.motion == STILL:
            options = "it moves", "it is there"
            true = options[not thing.moves]
        else:
            continue
        asks.append((f"What does the {thing.name} do?", options, true))
    return asks


def distinct_place(thing: Thing) -> bool:
    """Whether a thing lies clearly inside one quarter of the frame."""
    return abs(thing.x - 0.5) > 0.08 and abs(thing.y - 0.5) > 0.08
