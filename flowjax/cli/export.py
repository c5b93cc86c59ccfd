"""`flowjax export`."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.cli.options import Model, Overwrite, remote


def export(
    model: Model,
    out: Annotated[
        Path, typer.Argument(help="Folder to make, or gs://.", parser=remote, metavar="OUT")
    ],
    like: Annotated[
        Path | None,
        typer.Option(
            help="The checkpoint that the model was made from: how its keys are spelled, and what "
            "it has that the model does not hold, such as layers after the feature layer."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model as a checkpoint in Hugging Face format."""
    from flowjax_convert.export import export

    count = export(model, out, like=like, overwrite=overwrite)
    print(f"{out}: {count} tensors")
