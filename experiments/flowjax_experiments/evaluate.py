"""Accuracy of a model on a benchmark, per task, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from flowjax.asked.asked import Asked, true_token
from flowjax.data.frame_order import AS_IS
from flowjax.data.sample import Sample
from flowjax.models.checkpoint import LoadedModel
from flowjax.progress import Advance
from flowjax.report.arrays import grouped
from flowjax.report.statistics import Interval, proportion_interval
from flowjax.report.table import Table, mean
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import OF_MODEL, OF_SAMPLE, schema
from flowjax.runs.finished import Run


@dataclass(frozen=True)
class Evaluate(Analysis):
    """How many questions a model answers correctly, per task."""

    SCHEMA = schema(
        *OF_SAMPLE,
        ("options", pa.int32(), "how many options its question has"),
        ("true_answer", pa.string(), "letter of the true option"),
        ("answer", pa.string(), "most probable next token"),
        ("answer_id", pa.int32(), "its token id"),
        ("correct", pa.bool_(), "whether it is the true option's letter"),
        ("probability", pa.float64(), "of the answer, 0 to 1"),
        ("probability_true", pa.float64(), "of the true letter, 0 to 1"),
        ("frames", pa.string(), "order in which the model saw the frames"),
        *OF_MODEL,
    )
    KEPT = False

    frames: Annotated[
        Literal["as-is", "shuffled", "reversed", "repeated"],
        Option("as-is, shuffled, reversed, or repeated (one frame).", flag="--order"),
    ] = AS_IS

    @property
    def order(self) -> str:
        """As `frames` says."""
        return self.frames

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """One forward for every sample."""

        def measure(asked: Asked, _: Advance) -> Measured:
            probability = np.asarray(jax.nn.softmax(jnp.asarray(asked.logits)))
            answer = int(np.argmax(probability))

            def rows() -> Rows:
                row = {
                    "options": len(asked.question.options),
                    "answer": asked.text_of(answer),
                    "answer_id": answer,
                    "probability": float(probability[answer]),
                    "probability_true": float(probability[true_token(asked)]),
                    "frames": self.frames,
                }
                return [row]

            return Measured(answer, rows)

        return Work(measure)

    @staticmethod
    def report(run: Run) -> Report:
        """The accuracy of every task."""
        frames = run.rows["frames"][0].as_py()
        rows = [
            [at.task, str(at.interval.n), *mean(at.interval, ".3f"), f"{at.chance:.3f}"]
            for at in accuracies(run.rows)
        ]
        title = "Accuracy" if frames == AS_IS else f"Accuracy with frames {frames}"
        numbers = ["questions", "accuracy", "95% interval", "chance"]
        return Report([Table(title, ["task"], numbers, rows)])


@dataclass(frozen=True)
class Accuracy:
    """Share of a task's questions answered correctly, and the share that guessing would get."""

    task: str
    interval: Interval
    chance: float


def accuracies(table: pa.Table) -> list[Accuracy]:
    """Accuracy of every task, in the order in which tasks first occur."""
    found = []
    for task, rows in grouped(table, "task").items():
        interval = proportion_interval(sum(rows["correct"].to_pylist()), rows.num_rows)
        found.append(Accuracy(task, interval, float(np.mean(1 / rows["options"].to_numpy()))))
    return found
