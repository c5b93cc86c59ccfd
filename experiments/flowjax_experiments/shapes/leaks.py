"""How much of the shapes benchmark is answered without its videos: probes trained for it.

A model that is shown one frame over and over understates what one frame tells, for it was never
trained to answer so. A probe is: it sees a question, its options and at most one frame, drawn at
random, of training scenes, and is judged on the benchmark's own videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from PIL import Image

from flowjax.data.benchmark import read_benchmark
from flowjax.data.prompt import Question
from flowjax.data.shapes.benchmark import TASKS
from flowjax.data.shapes.paint import paint
from flowjax.data.shapes.scene import Numbers, tracks
from flowjax.data.shapes.tasks import Draw, draw_question
from flowjax.data.video import read_frames
from flowjax.report.statistics import Interval, proportion_interval
from flowjax.report.table import Table, mean

SIZE, PATCH, WIDTH = 48, 8, 64
OPTIONS = 4
PER_TASK, STEPS, BATCH = 1500, 1200, 128


class Asked(NamedTuple):
    """Questions as numbers, on a leading axis.

    stem: how often each word is in it. options: the same of each option; rows of zeros where there
    are fewer than four. choices: options there are. answer: index of the true one. frame: one
    frame, 0 to 1; all grey where none is shown.
    """

    stem: Float[Numbers, "*n words"]
    options: Float[Numbers, "*n 4 words"]
    choices: Int[Numbers, "*n"]
    answer: Int[Numbers, "*n"]
    frame: Float[Numbers, "*n size size 3"]


@dataclass(frozen=True)
class Leak:
    """Accuracy on a task of guessing, of the question-only probe and of the one-frame probe."""

    task: str
    chance: float
    question: Interval
    frame: Interval


class Probe(nnx.Module):
    """Scores every option from question, option and the patches of a frame that fit them."""

    def __init__(self, words: int, rngs: nnx.Rngs) -> None:
        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, rngs=rngs)

        patches = (SIZE // PATCH) ** 2
        self.stem, self.option = linear(words, WIDTH), linear(words, WIDTH)
        self.patch, self.hidden = linear(3 * PATCH**2, WIDTH), linear(WIDTH, WIDTH)
        self.place = nnx.Param(jax.random.normal(rngs.params(), (patches, WIDTH)) * 0.1)
        self.query, self.key = linear(2 * WIDTH, WIDTH), linear(WIDTH, WIDTH)
        self.mix, self.score = linear(4 * WIDTH, 2 * WIDTH), linear(2 * WIDTH, 1)

    def __call__(self, asked: Asked) -> Float[Array, "4"]:
        """Scores of one question's options; minus infinity where there is none."""
        grid = SIZE // PATCH
        patches = jnp.asarray(asked.frame).reshape(grid, PATCH, grid, PATCH, 3)
        patches = patches.transpose(0, 2, 1, 3, 4).reshape(grid * grid, -1)
        seen = nnx.gelu(self.patch(patches) + self.place[...])
        seen = seen + nnx.gelu(self.hidden(seen))
        stem = jnp.broadcast_to(self.stem(jnp.asarray(asked.stem)), (OPTIONS, WIDTH))
        text = jnp.concatenate([stem, self.option(jnp.asarray(asked.options))], axis=-1)
        fit = jax.nn.softmax(self.query(text) @ self.key(seen).T / WIDTH**0.5, axis=-1)
        everything = jnp.broadcast_to(jnp.mean(seen, axis=0), (OPTIONS, WIDTH))
        mixed = nnx.gelu(self.mix(jnp.concatenate([text, fit @ seen, everything], axis=-1)))
        scores = self.score(mixed)[:, 0]
        return jnp.where(jnp.arange(OPTIONS) < asked.choices, scores, -jnp.inf)


def measure(benchmark: Path, *, seed: int = 0) -> list[Leak]:
    """Train both probes on training scenes and judge them on a benchmark.

    Raises:
        FlowjaxError: the benchmark cannot be read.
    """
    trained_on, vocabulary = _training_questions(seed)
    tasks, asked = _benchmark_questions(benchmark, vocabulary, seed)
    right = {}
    for name, shown in (("question", False), ("frame", True)):
        probe = _train(_with_frames(trained_on, shown), len(vocabulary), seed)
        right[name] = _right(probe, _with_frames(asked, shown))
    leaks = []
    for task in dict.fromkeys(tasks):
        of_task = np.array([name == task for name in tasks])
        leaks.append(
            Leak(
                task,
                float(np.mean(1 / asked.choices[of_task])),
                *(_interval(right[name][of_task]) for name in ("question", "frame")),
            )
        )
    return leaks


def show(leaks: Sequence[Leak]) -> None:
    """Print what was measured."""
    rows = []
    for leak in leaks:
        cells = [" ".join(mean(of, ".3f")) for of in (leak.question, leak.frame)]
        rows.append([leak.task, f"{leak.chance:.3f}", *cells])
    numbers = ["chance", "question only", "question and one random frame"]
    Table("Accuracy of trained probes, with 95% intervals", ["task"], numbers, rows).print()


def _training_questions(seed: int) -> tuple[Asked, dict[str, int]]:
    rng = np.random.default_rng([seed, 7])
    drawn = [
        draw_question(task, Draw(rng, test=False), turn)
        for turn in range(PER_TASK)
        for task in TASKS
    ]
    texts = [text for _, question in drawn for text in (question.stem, *question.options)]
    words = sorted({word for text in texts for word in text.split()})
    vocabulary = {word: index for index, word in enumerate(words)}
    painted = jax.jit(lambda scene: paint(scene, SIZE)[0] / 255)
    frames = [
        np.asarray(painted(tracks(scene, rng.random(1, dtype=np.float32)))) for scene, _ in drawn
    ]
    return _asked([question for _, question in drawn], frames, vocabulary), vocabulary


def _benchmark_questions(
    benchmark: Path, vocabulary: dict[str, int], seed: int
) -> tuple[list[str], Asked]:
    rng = np.random.default_rng([seed, 8])
    samples = read_benchmark(benchmark)
    frames = []
    for sample in samples:
        clip = read_frames(sample.video, 8).frames
        picture = Image.fromarray(clip[rng.integers(len(clip))])
        small = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        frames.append(np.asarray(small, np.float32) / 255)
    asked = _asked([sample.question for sample in samples], frames, vocabulary)
    return [sample.task for sample in samples], asked


def _asked(
    questions: Sequence[Question],
    frames: Sequence[Float[np.ndarray, "size size 3"]],
    vocabulary: dict[str, int],
) -> Asked:
    count = len(questions)
    stem = np.zeros((count, len(vocabulary)), np.float32)
    options = np.zeros((count, OPTIONS, len(vocabulary)), np.float32)
    for index, question in enumerate(questions):
        for word in question.stem.split():
            stem[index, vocabulary[word]] += 1
        for place, option in enumerate(question.options):
            for word in option.split():
                options[index, place, vocabulary[word]] += 1
    return Asked(
        stem,
        options,
        np.array([len(question.options) for question in questions]),
        np.array([question.letters.index(question.answer or "") for question in questions]),
        np.stack(frames),
    )


def _with_frames(asked: Asked, shown: bool) -> Asked:
    return asked if shown else asked._replace(frame=np.full_like(asked.frame, 0.5))


def _train(asked: Asked, words: int, seed: int) -> Probe:
    graph, parameters = nnx.split(Probe(words, nnx.Rngs(seed)))
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, STEPS), weight_decay=1e-3)
    state = optimizer.init(parameters)

    def loss_of(parameters: nnx.State, some: Asked) -> Array:
        scores = jax.vmap(nnx.merge(graph, parameters))(some)
        return jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(scores, jnp.asarray(some.answer))
        )

    @jax.jit
    def step(
        parameters: nnx.State, state: optax.OptState, some: Asked
    ) -> tuple[nnx.State, optax.OptState]:
        gradient = jax.grad(loss_of)(parameters, some)
        updates, state = optimizer.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state  # pyright: ignore[reportReturnType] - the same kind of tree

    rng = np.random.default_rng(seed)
    for _ in range(STEPS):
        chosen = rng.integers(len(asked.answer), size=BATCH)
        parameters, state = step(parameters, state, Asked(*(part[chosen] for part in asked)))
    return nnx.merge(graph, parameters)


def _right(probe: Probe, asked: Asked) -> Float[np.ndarray, " n"]:
    scores = jax.jit(jax.vmap(probe))(Asked(*(jnp.asarray(part) for part in asked)))
    return (np.argmax(np.asarray(scores), axis=-1) == asked.answer).astype(np.float64)


def _interval(right: Float[np.ndarray, " n"]) -> Interval:
    return proportion_interval(int(right.sum()), len(right))
