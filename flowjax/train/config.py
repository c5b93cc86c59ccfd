"""What `flowjax train` is told: a file of tables, each a dataclass here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowjax.errors import FlowjaxError
from flowjax.mesh import MeshShape
from flowjax.train.schedule import Schedule

LINEAR = ("query", "key", "value", "output", "gate", "up", "down")
"""The linear layers of a decoder layer."""

DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True)
class Source:
    """Annotations in the layout of VideoChat2-IT, and the folder that their videos are in."""

    annotations: Path
    videos: Path


@dataclass(frozen=True)
class Batch:
    """Of a step.

    size: videos, over all devices.
    length: positions of a video, its questions and their answers.
    micro: videos that a device computes at a time; the gradients of a step's are added up.
    questions: that are asked of one video at most.
    frames: of every video; None as the checkpoint says.
    frame_size: rows and columns that frames are resized to first, for families that keep the
        proportions of videos; None: as they are.
    end: the token that ends an answer; None for the tokenizer's `eos_token`.
    workers: threads that decode videos.
    """

    size: int
    length: int
    micro: int = 1
    questions: int = 4
    frames: int | None = None
    frame_size: tuple[int, int] | None = None
    end: str | None = None
    workers: int = 4

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check_positive(self, "size", "length", "micro", "questions", "workers", "frames")
        if self.frame_size is not None and min(self.frame_size) < 1:
            raise FlowjaxError(f"frame_size is {list(self.frame_size)}; give rows and columns")


@dataclass(frozen=True)
class Lora:
    """Low-rank updates of decoder layers (Hu et al. 2021, arXiv 2106.09685).

    What is added to a weight is `alpha / rank` times a product of two matrices.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = LINEAR

    def __post_init__(self) -> None:
        """Check rank and targets."""
        _check_positive(self, "rank", "alpha")
        for name in self.targets:
            if name not in LINEAR:
                raise FlowjaxError(f"targets has {name!r}; choose of {', '.join(LINEAR)}")
        if not self.targets:
            raise FlowjaxError(f"targets is empty; choose of {', '.join(LINEAR)}")

    @property
    def scaling(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Evaluation:
    """A benchmark whose questions are answered every so many steps, and at the end.

    data: its folder. tasks: none for all. limit: questions of each task.
    """

    data: Path
    every: int
    tasks: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check_positive(self, "every", "limit")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run.

    model: a converted model, to begin with.
    out: the run's folder.
    data: what is learned.
    frozen: beginnings of the paths of parameters that stay, such as `vision` or
        `decoder/embedding`; with `lora`, the decoder's own always stay.
    compute: the dtype of forward and backward passes; trained parameters are float32.
    remat: compute layers anew in backward passes, which saves memory.
    mesh: devices, as `--mesh` writes them: parameters are divided over both axes.
    seed: of the order of the data, and of what LoRA begins with.
    log_every, save_every: steps.
    tensorboard: write event files as well; needs tensorboardX.
    """

    model: Path
    out: Path
    data: tuple[Source, ...]
    batch: Batch
    schedule: Schedule
    lora: Lora | None = None
    frozen: tuple[str, ...] = ("vision",)
    compute: str = "bfloat16"
    remat: bool = True
    mesh: str | None = None
    seed: int = 0
    log_every: int = 10
    save_every: int = 500
    tensorboard: bool = False
    evaluation: Evaluation | None = None
    note: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without reading anything."""
        _check_positive(self, "log_every", "save_every")
        if not self.data:
            raise FlowjaxError("data is empty; give annotations and videos")
        if self.compute not in DTYPES:
            raise FlowjaxError(f"compute is {self.compute!r}; choose {' or '.join(DTYPES)}")
        schedule = self.schedule
        if not 0 < schedule.warmup < schedule.steps:
            raise FlowjaxError(f"schedule.warmup is {schedule.warmup}; give 1 to steps - 1")
        for name in ("peak", "clip"):
            if not getattr(schedule, name) > 0:
                raise FlowjaxError(
                    f"schedule.{name} is {getattr(schedule, name)}; give more than 0"
                )

    @property
    def mesh_shape(self) -> MeshShape:
        """Of the mesh: as given, or one copy per device."""
        return MeshShape(None) if self.mesh is None else MeshShape.parse(self.mesh)


def _check_positive(table: Any, *names: str) -> None:  # noqa: ANN401 - any of the tables
    for name in names:
        value = getattr(table, name)
        if value is not None and not value > 0:
            raise FlowjaxError(f"{name} is {value}; give more than 0")
