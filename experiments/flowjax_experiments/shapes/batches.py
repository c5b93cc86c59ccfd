"""What the shapes models are trained on: scenes, and packed questions about them.

Every batch follows from seed, stage and step alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.data.prompt import Question
from flowjax.data.shapes import benchmark
from flowjax.data.shapes import questions as ask
from flowjax.data.shapes.paint import paint
from flowjax.data.shapes.scene import MOST, Numbers, Scene, Tracks, tracks
from flowjax.data.shapes.tasks import IMAGE_TASKS, Draw, draw_question
from flowjax.data.shapes.world import BACKGROUNDS, COLOURS, PAIRS, SHAPES
from flowjax.data.video import frame_indices
from flowjax.train.packing import Packed, Segment, pack
from flowjax_experiments.shapes.recipe import STAGES, Recipe
from flowjax_experiments.shapes.targets import Motions, motions
from flowjax_experiments.shapes.texts import Texts

VIDEO_FRAMES = benchmark.FRAMES
"""Frames of the benchmark's videos."""

COMPANY = 0.5
"""Probability of one more thing in a scene than what is asked about, where there is company."""

NOISE = 4.0
"""Standard deviation of the noise on training frames, of 255, in place of H.264's."""

MIX = {
    "image": dict.fromkeys(IMAGE_TASKS, 1.0)
    | {"moving_direction": 0.5, "scene_transition": 0.25, "object_count": 0.5},
    "video": {
        "moving_direction": 3.0,
        "action_sequence": 3.0,
        "action_antonym": 1.5,
        "scene_transition": 0.7,
        "object_count": 2.5,
    }
    | dict.fromkeys(IMAGE_TASKS, 0.25),
}
MIX["motion"] = MIX["video"]
"""How often scenes of each task come, by stage."""

POOLS: tuple[tuple[str, ...], ...] = (
    tuple(COLOURS),
    tuple(BACKGROUNDS),
    SHAPES,
    *PAIRS[:2],
    tuple(ask.ACTS.values()),
    ask.NUMBERS,
    ask.PLACES,
    tuple(f"the {colour} {shape}" for colour in COLOURS for shape in SHAPES),
    tuple(f"from {one} to {other}" for one in BACKGROUNDS for other in BACKGROUNDS if one != other),
)
"""Options of the text stage."""

OPEN, CHOICES = 3, 2
"""Open and multiple-choice questions per scene, as far as there are and fit."""

STATED = 0.5
"""How often one of the questions about a video is about what a single thing does when."""


class Wanted(NamedTuple):
    """What is asked of an example beside its text.

    layer: int32 [batch], decoder layers after which video tokens tell what happens. motion: weight
    of that. weight: of the example, as its text has it. hide: bool, whether its questions cannot
    read the video in early layers.
    """

    layer: Int[Numbers, " *batch"]
    motion: Float[Numbers, " *batch"]
    weight: Float[Numbers, " *batch"]
    hide: Bool[Numbers, " *batch"]


class Examples(NamedTuple):
    """A batch: scenes at the times of the frames that a model is shown, and questions.

    word: int32 [batch, things], a token that says what a thing is or does. known: [batch, things,
    times], whether the frames up to that time tell it. packed: None where nothing is asked.
    """

    scenes: Tracks
    packed: Packed | None
    word: Int[Numbers, "*batch things"]
    known: Float[Numbers, "*batch things times"]
    motions: Motions


def frame_times(frames: int) -> Float[np.ndarray, " frames"]:
    """When the frames that a model is shown lie in a scene, as `read_frames` takes them."""
    return (frame_indices(0, VIDEO_FRAMES - 1, frames) / (VIDEO_FRAMES - 1)).astype(np.float32)


@dataclass(frozen=True)
class Stream:
    """The batches of a stage, by their step: `Packed`, `Tracks` of single frames, or `Examples`."""

    texts: Texts
    recipe: Recipe
    stage: str
    seed: int

    def __call__(self, step: int) -> Packed | Tracks | Examples:
        """Draw one."""
        recipe, seed = self.recipe, self.seed
        alone = step < recipe.alone * recipe.schedule(self.stage).steps
        if self.stage == "text":
            return draw_drills(self.texts, recipe.batch, seed=seed, step=step)
        if self.stage == "vision":
            return draw_frames(recipe.vision_batch, seed=seed, step=step, alone=alone)
        return draw_examples(
            self.texts, self.stage, recipe.batch, seed=seed, step=step, alone=alone
        )


def draw_drills(texts: Texts, size: int, *, seed: int, step: int) -> Packed:
    """The batch of a step of the text stage: `size` sequences of drills, without a video."""
    rng = np.random.default_rng([seed, STAGES.index("text"), step])
    prefix = texts.prefix[texts.prefix != texts.config.placeholder]
    drills = texts.text_length // 40
    packed = []
    for _ in range(size):
        pools = [POOLS[index] for index in rng.integers(len(POOLS), size=drills)]
        segments = [texts.drill(pool, rng) for pool in pools]
        packed.append(pack(prefix, segments, texts.text_length))
    return Packed(*(np.stack(part) for part in zip(*packed, strict=True)))


def draw_frames(size: int, *, seed: int, step: int, alone: bool) -> Tracks:
    """Single frames of `size` scenes, for the step of the vision stage.

    alone: nothing moves in company, but still things are as many as ever.
    """
    rng = np.random.default_rng([seed, STAGES.index("vision"), step])
    every = []
    for scene, _ in _draw_scenes(rng, "image", size, company=not alone):
        every.append(tracks(scene, rng.random(1, dtype=np.float32)))
    return Tracks(*(np.stack(part) for part in zip(*every, strict=True)))


def draw_examples(
    texts: Texts, stage: str, size: int, *, seed: int, step: int, alone: bool
) -> Examples:
    """The batch of a step: `size` scenes, each with questions and, of videos, a caption.

    alone: scenes have nothing but what they are made to ask about.
    """
    rng = np.random.default_rng([seed, STAGES.index(stage), step])
    video = stage in ("motion", "video")
    prefix = texts.prefix
    scenes, packed, words, happens = [], [], [], []
    crowd = 1 if alone else MOST
    for scene, main in _draw_scenes(rng, stage, size, company=not alone, crowd=crowd):
        if video:
            times = np.clip(frame_times(texts.config.frames) + rng.uniform(-0.02, 0.02), 0, 1)
            times = times.astype(np.float32)
        else:
            times = rng.random(1, dtype=np.float32)
        scenes.append(tracks(scene, times))
        packed.append(pack(prefix, _segments(texts, scene, main, rng, video=video), texts.length))
        words.append(texts.words(scene, times, acts=video))
        happens.append(motions(scene, times))
    word, known = (np.stack(part) for part in zip(*words, strict=True))
    return Examples(
        scenes=Tracks(*(np.stack(part) for part in zip(*scenes, strict=True))),
        packed=Packed(*(np.stack(part) for part in zip(*packed, strict=True))),
        word=word,
        known=known,
        motions=Motions(*(np.stack(part) for part in zip(*happens, strict=True))),
    )


def _draw_scenes(
    rng: np.random.Generator, stage: str, size: int, *, company: bool, crowd: int = MOST
) -> Iterator[tuple[Scene, Question]]:
    names, weights = zip(*MIX[stage].items(), strict=True)
    for task in rng.choice(len(names), size, p=np.array(weights) / sum(weights)):
        draw = Draw(rng, test=False, company=COMPANY if company else 0.0, crowd=crowd)
        yield draw_question(names[task], draw, int(rng.integers(1 << 20)))


def _segments(
    texts: Texts, scene: Scene, main: Question, rng: np.random.Generator, *, video: bool
) -> list[Segment]:
    asks = ask.every_question(scene, rng) if video else _of_one_frame(scene, rng)
    order = [asks[index] for index in rng.permutation(len(asks))]
    first = [one for one in order if one[0] == main.stem]
    states = ask.ask_states(scene) if video and rng.random() < STATED else []
    first += [states[index] for index in rng.permutation(len(states))[:1]]
    order = first + [one for one in order if one not in first]
    segments = [
        texts.choice(ask.multiple_choice(stem, options, true, rng), texts.verdict)
        for stem, options, true in order[:CHOICES]
    ]
    opened = [texts.open(stem, true) for stem, _, true in order[:OPEN]]
    pool = sorted({option for _, options, _ in order for option in options})
    named = texts.drill(pool, rng, texts.verdict)
    described = [texts.open("Describe the video.", ask.caption(scene), 0.3)] if video else []
    return [*segments[:1], *opened[:1], *described, named, *opened[1:], *segments[1:]]


def _of_one_frame(scene: Scene, rng: np.random.Generator) -> list[ask.Ask]:
    """What any frame of a scene answers."""
    asks = [
        one
        for thing in scene.things
        if thing.motion not in ("appear", "disappear")
        for one in (ask.ask_colour(thing, rng), ask.ask_shape(thing))
    ]
    still = [thing for thing in scene.things if thing.motion == "still"]
    asks += [ask.ask_place(thing) for thing in still if ask.distinct_place(thing)]
    if len(scene.backgrounds) == 1:
        asks.append(ask.ask_background(scene))
    asks.append(ask.ask_number(scene))
    return asks


def pixel_values(
    scenes: Tracks,
    key: Array,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "batch times 3 size size"]:
    """The frames of a batch of scenes with noise, normalised as the preprocessor does."""
    frames = jax.vmap(lambda scene: paint(scene, size))(scenes)
    frames = frames + NOISE * jax.random.normal(key, frames.shape)
    frames = jnp.clip(frames, 0, 255) / 255
    normed = (frames - jnp.asarray(mean)) / jnp.asarray(std)
    return jnp.moveaxis(normed, -1, -3)
