"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Argument(help="A converted model: the OUT of `flowjax convert`.")]
Frames = Annotated[
    int | None,
    typer.Option("--frames", help="Frames of every video. Default: as the checkpoint says."),
]
Fps = Annotated[
    float | None, typer.Option(help="Frames a second instead, so that longer videos have more.")
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        help="Pixels that frames are resized to at most, as the model's processor has it."
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="reference: the family's own prompt; chat: the checkpoint's chat template; or a file "
        "with {video}, {question} and {options} in it. Default: as the model was converted."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")]
