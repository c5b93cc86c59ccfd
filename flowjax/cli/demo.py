"""`flowjax demo`."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.cli.options import Overwrite


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    overwrite: Overwrite = False,
) -> None:
    """Make a small checkpoint and videos, convert, sweep, and draw."""
    from experiments.demo import run

    run(out, overwrite=overwrite)
