"""`flowjax evaluate` and `flowjax make-shapes`: a benchmark, and how well a model does on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowjax.cli.options import Model, Overwrite, asks_questions

if TYPE_CHECKING:
    from flowjax_experiments.selection import Selection


@asks_questions
def evaluate(
    model: Model,
    questions: "Selection",
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    frames: Annotated[
        str,
        typer.Option(help="as-is, shuffled, reversed, or repeated (one frame, chosen at random)."),
    ] = "as-is",
    overwrite: Overwrite = False,
) -> None:
    """How many questions a model answers correctly, per task."""
    from flowjax_experiments.evaluate import run

    run(model, questions, out, frames=frames, overwrite=overwrite)


def make_shapes(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    per_task: Annotated[int, typer.Option(help="Questions per task.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the random choices.")] = 0,
    leaks: Annotated[
        bool, typer.Option("--leaks", help="Measure what can be answered without the video.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Make the procedural benchmark: short videos of moving shapes, with questions."""
    from flowjax_experiments.shapes.make import make

    make(out, split=split, per_task=per_task, seed=seed, leaks=leaks, overwrite=overwrite)
