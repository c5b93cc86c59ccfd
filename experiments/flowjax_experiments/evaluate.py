"""Accuracy of a model on a benchmark, per task, with intervals."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flowjax.asked.asked import Asked, true_token
from flowjax.compilation import use_persistent_cache
from flowjax.data.frame_order import AS_IS
from flowjax.data.sample import Sample
from flowjax.models.checkpoint import LoadedModel, load_model
from flowjax.progress import Advance
from flowjax.report.statistics import Interval, proportion_interval
from flowjax.runs.each_sample import Results, each_sample
from flowjax.version import __version__
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False, metadata={"doc": doc})
        for name, kind, doc in [
            ("sample_id", pa.string(), "the sample"),
            ("task", pa.string(), "its task"),
            ("options", pa.int32(), "how many options its question has"),
            ("true_answer", pa.string(), "letter of the true option"),
            ("answer", pa.string(), "most probable next token"),
            ("correct", pa.bool_(), "whether it is the true option's letter"),
            ("probability", pa.float64(), "of the answer, 0 to 1"),
            ("probability_true", pa.float64(), "of the true letter, 0 to 1"),
            ("frames", pa.string(), "order in which the model saw the frames"),
            ("model", pa.string(), "the model's name"),
            ("model_note", pa.string(), "what to know about the model when reading results"),
            ("version", pa.string(), "flowjax version"),
        ]
    ]
)


@dataclass(frozen=True)
class Accuracy:
    """Share of a task's questions answered correctly, and the share that guessing would get."""

    task: str
    interval: Interval
    chance: float


def evaluate(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    out: Path,
    *,
    order: str = AS_IS,
    strict: bool = False,
    overwrite: bool = False,
) -> Results:
    """Ask every question once; one row each, with the columns of `SCHEMA`.

    Args:
        loaded: the model.
        samples: the questions.
        out: the run's folder.
        order: of the frames; see `flowjax.data.frame_order`.
        strict: a sample that cannot be read ends the run.
        overwrite: replace another run there.

    Raises:
        FlowjaxError: see `each_sample`.
    """

    def measure(prepared: Asked, advance: Advance) -> pa.Table:
        del advance
        probability = np.asarray(jax.nn.softmax(jnp.asarray(prepared.logits)))
        answer = int(np.argmax(probability))
        question = prepared.sample.question
        row = {
            "sample_id": prepared.sample.sample_id,
            "task": prepared.sample.task,
            "options": len(question.options),
            "true_answer": question.answer,
            "answer": loaded.tokenizer.decode([answer]).strip(),
            "correct": prepared.is_correct(answer),
            "probability": float(probability[answer]),
            "probability_true": float(probability[true_token(prepared)]),
            "frames": order,
            "model": loaded.name,
            "model_note": loaded.note,
            "version": __version__,
        }
        return pa.Table.from_pylist([row], SCHEMA)

    return each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={"experiment": "evaluate"},
        order=order,
        strict=strict,
        overwrite=overwrite,
    )


def accuracies(table: pa.Table) -> list[Accuracy]:
    """Accuracy of every task, in the order in which tasks first occur."""
    found = []
    for task in table["task"].unique().to_pylist():
        rows = table.filter(pc.field("task") == task)
        interval = proportion_interval(sum(rows["correct"].to_pylist()), rows.num_rows)
        found.append(Accuracy(task, interval, float(np.mean(1 / rows["options"].to_numpy()))))
    return found


def run(
    model: Path, questions: Selection, out: Path | None, *, frames: str, overwrite: bool
) -> None:
    """Evaluate, and print the accuracy of every task.

    Raises:
        FlowjaxError: a bad input.
    """
    use_persistent_cache()
    samples = questions.read()
    loaded = load_model(model)
    with tempfile.TemporaryDirectory() as nowhere:
        folder = Path(nowhere) / "run" if out is None else out
        evaluate(
            loaded,
            samples,
            folder,
            order=frames,
            strict=questions.strict or questions.one,
            overwrite=overwrite,
        )
        report(folder)


def report(run: Path) -> None:
    """Print the accuracies of a finished run.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table = read_results(run)
    for note in table["model_note"].unique().to_pylist():
        if note:
            print(f"NOTE: {note}")
    frames = table["frames"][0].as_py()
    shown = Table(title="Accuracy" if frames == AS_IS else f"Accuracy with frames {frames}")
    shown.add_column("task")
    for name in ("questions", "accuracy", "95% interval", "chance"):
        shown.add_column(name, justify="right")
    for found in accuracies(table):
        interval = found.interval
        shown.add_row(
            escape(found.task),
            str(interval.n),
            f"{interval.mean:.3f}",
            f"[{interval.low:.3f}, {interval.high:.3f}]",
            f"{found.chance:.3f}",
        )
    Console(width=None if Console().is_terminal else 110).print(shown)
    print_failures(run)
