"""Which questions a command is asked about: a benchmark, or one question about one video."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.runs.each_sample import Chosen


@dataclass(frozen=True)
class Selection:
    """As the command line gives it: `data` and what follows it, or `video` and what follows it.

    data: a benchmark's folder (see `flowjax.data.tvbench`).
    tasks: of it; all where empty.
    limit: the first so many questions of each task.
    samples: "correct", "wrong" or "all"; None for the command's own choice.
    strict: a sample that cannot be read ends the run.
    video, question, options, answer: one question.
    """

    data: Path | None = None
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    samples: str | None = None
    strict: bool = False
    video: Path | None = None
    question: str | None = None
    options: tuple[str, ...] = ()
    answer: str | None = None

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
        given = [name for name, value in single.items() if value]
        if self.data is not None and given:
            raise FlowjaxError(f"--data and {given[0]}: give a benchmark or one question, not both")
        if self.data is None and len(given) < len(single):
            missing = [name for name in single if name not in given]
            raise FlowjaxError(
                f"missing {', '.join(missing)}: give --data DIR, or --video, --question, --option "
                "(once per option) and --answer"
            )
        many = {"--task": self.tasks, "--limit": self.limit, "--samples": self.samples}
        for name, value in many.items():
            if self.data is None and value:
                raise FlowjaxError(f"{name} chooses among the questions of --data, which is absent")
        if self.samples not in (None, *get_args(Chosen)):
            raise FlowjaxError(
                f"--samples {self.samples!r}: choose one of {', '.join(get_args(Chosen))}"
            )

    @property
    def one(self) -> bool:
        """Whether it is one question about one video."""
        return self.data is None

    def read(self) -> tuple[Sample, ...]:
        """The questions.

        Raises:
            FlowjaxError: see `read_tvbench`.
        """
        if self.data is not None:
            # tensorflow_datasets takes a second to import, which one question need not wait for.
            from flowjax.data.tvbench import read_tvbench  # noqa: PLC0415 - see above

            return read_tvbench(self.data, self.tasks, self.limit)
        assert self.video is not None and self.question is not None
        question = Question(self.question, self.options, self.answer)
        return (Sample(self.video.name, "", self.video, question),)

    def chosen(self, default: Chosen) -> Chosen:
        """Which of the samples count; all where there is only one."""
        if self.one:
            return "all"
        return cast(Chosen, self.samples) if self.samples is not None else default
