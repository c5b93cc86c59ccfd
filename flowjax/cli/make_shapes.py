"""`flowjax make-shapes`."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.cli.options import Overwrite


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
