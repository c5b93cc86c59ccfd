"""`flowjax demo`."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.cli.options import Overwrite


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    per_task: Annotated[int, typer.Option(min=1, help="Videos of each task.")] = 12,
    overwrite: Overwrite = False,
) -> None:
    """Convert the shipped image and video model, sweep both over videos, print and draw."""
    from flowjax_experiments.demo import run

    run(out, per_task=per_task, overwrite=overwrite)
