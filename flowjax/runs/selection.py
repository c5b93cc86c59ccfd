"""Which questions are asked: a benchmark's, or one about one video."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.data.samples import Samples
from flowjax.data.video_options import AS_CHECKPOINT, VideoOptions
from flowjax.errors import FlowjaxError
from flowjax.files import printable

Chosen = Literal["correct", "wrong", "all"]
"""Which samples count, by the model's answer to them."""


@dataclass(frozen=True)
class Selection:
    """As the command line gives it: `data` and what follows it, or `video` and what follows it.

    data: a benchmark's folder or a table of questions (see `flowjax.data.benchmarks`).
    tasks: of it; all where empty.
    limit: the first so many questions of each task.
    sample_size: so many questions of each task, drawn at random; all of a task that has fewer.
    seed: of the drawing.
    samples: which of them count; None for the analysis's own choice.
    strict: a sample that cannot be read ends the run, also one whose entry is not well formed.
    video, question, options, answer: one question.
    is_open: whether one question needs neither options nor an answer.
    reading: how their videos are read.
    prompt: what they are asked by; see `LoadedModel.asked_by`.
    """

    data: Path | None = None
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    sample_size: int | None = None
    seed: int | None = None
    samples: Chosen | None = None
    strict: bool = False
    video: Path | None = None
    question: str | None = None
    options: tuple[str, ...] = ()
    answer: str | None = None
    is_open: bool = False
    reading: VideoOptions = AS_CHECKPOINT
    prompt: str | None = None

    def __post_init__(self) -> None:
        """Check that exactly one of the two forms is given, whole.

        Raises:
            FlowjaxError: says what is missing or too much.
        """
        single = {
            "--video": self.video,
            "--question": self.question,
            "--option": self.options,
            "--answer": self.answer,
        }
        needed = ["--video", "--question"] if self.is_open else list(single)
        given = [name for name, value in single.items() if value]
        if self.data is not None and given:
            raise FlowjaxError(f"--data and {given[0]}: give a benchmark or one question, not both")
        missing = [name for name in needed if name not in given]
        if self.data is None and missing:
            wanted = "--video and --question, and --option and --answer if it has options"
            if not self.is_open:
                wanted = "--video, --question, --option (once per option) and --answer"
            raise FlowjaxError(f"missing {', '.join(missing)}: give --data DIR, or {wanted}")
        many = {"--task": self.tasks or None, "--limit": self.limit, "--samples": self.samples}
        many |= {"--sample-size": self.sample_size, "--seed": self.seed}
        for name, value in many.items():
            if self.data is None and value is not None:
                raise FlowjaxError(f"{name} chooses among the questions of --data, which is absent")
        if self.seed is not None and (self.sample_size is None or self.seed < 0):
            raise FlowjaxError(f"--seed {self.seed}: of --sample-size, and at least 0")
        if self.sample_size is not None and (self.sample_size < 1 or self.limit is not None):
            raise FlowjaxError(
                f"--sample-size {self.sample_size}: give at least 1, and no --limit beside it"
            )
        if self.samples not in (None, *get_args(Chosen)):
            raise FlowjaxError(
                f"--samples {self.samples!r}: choose one of {', '.join(get_args(Chosen))}"
            )

        if self.is_open and self.samples not in (None, "all"):
            raise FlowjaxError(f"--samples {self.samples}: no answer here is right or wrong")

    @property
    def one(self) -> bool:
        """Whether it is one question about one video."""
        return self.data is None

    def read(self) -> Sequence[Sample]:
        """The questions.

        Raises:
            FlowjaxError: see `read_benchmark`.
        """
        if self.data is not None:
            # tensorflow_datasets takes a second to import, which one question need not wait for.
            from flowjax.data.benchmark import read_benchmark  # noqa: PLC0415 - see above

            return self._drawn(read_benchmark(self.data, self.tasks, self.limit))
        assert self.video is not None and self.question is not None
        question = Question(self.question, self.options, self.answer)
        return (Sample(printable(self.video.name), "", self.video, question),)

    @property
    def settings(self) -> dict[str, Any]:
        """What was drawn at random, for a manifest."""
        if self.sample_size is None:
            return {}
        return {"sample_size": self.sample_size, "seed": self.seed or 0}

    def _drawn(self, samples: Samples) -> Samples:
        """A random subset of every task, in the order of the questions; all without a size.

        A task's subset does not depend on which other tasks are asked for.
        """
        if self.sample_size is None:
            return samples
        kept: list[int] = []
        for task in dict.fromkeys(samples.tasks):
            places = [index for index, own in enumerate(samples.tasks) if own == task]
            rng = np.random.default_rng([self.seed or 0, *task.encode()])
            size = min(self.sample_size, len(places))
            kept += [places[index] for index in rng.choice(len(places), size, replace=False)]
        return samples.only(sorted(kept))

    def chosen(self, default: Chosen) -> Chosen:
        """Which of the samples count; all where there is only one."""
        if self.one:
            return "all"
        return default if self.samples is None else self.samples
