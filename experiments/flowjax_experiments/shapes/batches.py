"""What the shapes models are trained on: scenes, and packed questions about them.

Every batch follows from seed, stage and step alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from tokenizers import Encoding, Tokenizer

from flowjax.data.prompt import Prompt, Question, VideoShape
from flowjax.data.shapes import benchmark
from flowjax.data.shapes import questions as ask
from flowjax.data.shapes.paint import paint
from flowjax.data.shapes.scene import MOST, Numbers, Scene, Tracks, tracks
from flowjax.data.shapes.tasks import IMAGE_TASKS, Draw, draw_question
from flowjax.data.shapes.world import BACKGROUNDS, COLOURS, PAIRS, SHAPES
from flowjax.data.video import frame_indices
from flowjax.models.families import pllava
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.train.packing import Packed, Segment, pack
from flowjax_experiments.shapes.recipe import STAGES

VIDEO_FRAMES = benchmark.FRAMES
"""Frames of the benchmark's videos."""

END = "</s>"
TRUE = "▁best"
"""What is learned to follow a true option, in place of the line's end."""

COMPANY = 0.5
"""Probability of one more thing in a scene than what is asked about, where there is company."""

NOISE = 4.0
"""Standard deviation of the noise on training frames, of 255, in place of H.264's."""

MIX = {
    "image": dict.fromkeys(IMAGE_TASKS, 1.0)
    | {"moving_direction": 0.5, "scene_transition": 0.25, "object_count": 0.5},
    "video": {
        "moving_direction": 3.0,
        "action_sequence": 2.0,
        "action_antonym": 1.5,
        "scene_transition": 0.7,
        "object_count": 1.5,
    }
    | dict.fromkeys(IMAGE_TASKS, 0.2),
}
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


class Examples(NamedTuple):
    """A batch: scenes at the times of the frames that a model is shown, and questions.

    word: int32 [batch, things], a token that says what a thing is or does. known: [batch, things,
    times], whether the frames up to that time tell it.
    """

    scenes: Tracks
    packed: Packed
    word: Int[Numbers, "*batch things"]
    known: Float[Numbers, "*batch things times"]


@dataclass(frozen=True)
class Texts:
    """Turns questions into tokens, as the model's prompt has them.

    length: positions of a packed sequence.
    verdict: weight of saying of every option of a question about a scene whether it is true.
    """

    tokenizer: Tokenizer
    config: VideoLLMConfig
    length: int
    verdict: float

    @property
    def video_position(self) -> Int[np.ndarray, " video"]:
        """Where the video's embeddings go, in every sequence."""
        prefix = self.prefix
        return np.flatnonzero(prefix == self.config.placeholder).astype(np.int32)

    @property
    def prefix(self) -> Int[np.ndarray, " prefix"]:
        """The text before the video, and the video's positions."""
        ids = self._encode(Question("What?", ()), "")[1].ids
        before = ids[: ids.index(self.config.placeholder)]
        assert self.config.tokens_per_frame is not None
        video = self.config.frames * self.config.tokens_per_frame
        return np.array([*before, *[self.config.placeholder] * video], np.int32)

    def choice(self, question: Question, verdict: float = 0.0) -> Segment:
        """A multiple-choice question; the letter of its answer is learned.

        verdict: weight of the loss of saying after every option whether it is the true one.
        """
        assert question.answer is not None
        prompt, encoding = self._encode(question, question.answer)
        ids = np.array(encoding.ids, np.int32)
        wanted, learned = ids.copy(), np.zeros(len(ids), np.float32)
        learned[-1] = 1
        ends = [stop for _, stop in encoding.offsets]
        for span in prompt.spans:
            if verdict and span.cell.startswith("option_"):
                after = ends.index(span.stop) + 1
                learned[after] = verdict
                if span.cell == prompt.true_option:
                    wanted[after] = self._word(TRUE)
        return self._after_video(ids, wanted, learned)

    def open(self, stem: str, answer: str, weight: float = 1.0) -> Segment:
        """A question without options; its answer and the end token are learned."""
        question = Question(stem, ())
        asked = len(self._encode(question, "")[1])
        ids = np.array(self._encode(question, f" {answer}{END}")[1].ids, np.int32)
        learned = np.zeros(len(ids), np.float32)
        learned[asked:] = weight
        return self._after_video(ids, ids, learned)

    def drill(self, pool: Sequence[str], rng: np.random.Generator, verdict: float = 0.0) -> Segment:
        """A question that names one of its two to four options.

        It needs no video. A model that answers such questions has learned that options check
        themselves against the question and that the answer is the letter of the one that fits,
        which it learns much later where it must know the answer first.
        """
        count = min(len(pool), int(rng.integers(2, 5)))
        options = [pool[int(index)] for index in rng.permutation(len(pool))[:count]]
        stem = f"Which option is {options[0]}?"
        return self.choice(ask.multiple_choice(stem, options, options[0], rng), verdict)

    def words(
        self, scene: Scene, times: Float[np.ndarray, " times"], *, acts: bool
    ) -> tuple[Int[np.ndarray, " things"], Float[np.ndarray, "things times"]]:
        """A word for every thing, and when frames have told it.

        What it does if `acts` and it does something that leaves it in the frame; else its colour.
        """
        word, known = np.zeros(MOST, np.int32), np.zeros((MOST, len(times)), np.float32)
        for index, thing in enumerate(scene.things):
            begun = (times - thing.start) / (thing.stop - thing.start)
            if acts and (thing.moves or thing.motion in ("grow", "shrink", "appear")):
                text = thing.motion if thing.moves else ask.ACTS[thing.motion].removeprefix("it ")
                known[index] = begun > (0.5 if thing.motion == "appear" else 0.25)
            else:
                text, known[index] = thing.colour, 1
            word[index] = self._word(f"▁{text}")
        return word, known

    def _word(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        assert found is not None, token
        return found

    def _encode(self, question: Question, answer: str) -> tuple[Prompt, Encoding]:
        """The prompt and the tokens of it and an answer."""
        prompt = pllava.prompt(self.config, question, VideoShape((), ()))
        return prompt, self.tokenizer.encode(prompt.text + answer)

    def _after_video(
        self,
        ids: Int[np.ndarray, " n"],
        wanted: Int[np.ndarray, " n"],
        learned: Float[np.ndarray, " n"],
    ) -> Segment:
        """What comes after the video's placeholder."""
        start = int(np.flatnonzero(ids == self.config.placeholder)[0]) + 1
        return Segment(ids[start:], wanted[start:], learned[start:])


def frame_times(frames: int) -> Float[np.ndarray, " frames"]:
    """When the frames that a model is shown lie in a scene, as `read_frames` takes them."""
    return (frame_indices(0, VIDEO_FRAMES - 1, frames) / (VIDEO_FRAMES - 1)).astype(np.float32)


def draw_drills(texts: Texts, size: int, *, seed: int, step: int) -> Packed:
    """The batch of a step of the text stage: `size` sequences of drills, without a video."""
    rng = np.random.default_rng([seed, STAGES.index("text"), step])
    prefix = texts.prefix[texts.prefix != texts.config.placeholder]
    drills = texts.length // 40
    packed = []
    for _ in range(size):
        pools = [POOLS[index] for index in rng.integers(len(POOLS), size=drills)]
        segments = [texts.drill(pool, rng) for pool in pools]
        packed.append(pack(prefix, segments, texts.length))
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
    video = stage == "video"
    prefix = texts.prefix
    scenes, packed, words = [], [], []
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
    return Examples(
        Tracks(*(np.stack(part) for part in zip(*scenes, strict=True))),
        Packed(*(np.stack(part) for part in zip(*packed, strict=True))),
        *(np.stack(part) for part in zip(*words, strict=True)),
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
    moving = [one for one in order if one[0] == main.stem]
    order = moving + [one for one in order if one[0] != main.stem]
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
