"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.errors import FlowjaxError


def remote(text: str) -> Path:
    """A path that may be in an object store; what it needs is imported for those alone."""
    if "://" not in text:
        return Path(text)
    from flowjax.paths import as_path

    return as_path(text)


def on_this_machine(text: str) -> Path:
    """A path that cannot be in an object store.

    Raises:
        FlowjaxError: it is.
    """
    if "://" in text:
        raise FlowjaxError(
            f"{text}: videos and prepared frames are read from files; copy them to every host's "
            "disk, or mount the bucket (gcsfuse)"
        )
    return Path(text)


Model = Annotated[
    Path,
    typer.Argument(
        help="A converted model: the OUT of `flowjax convert`, or gs://.",
        parser=remote,
        metavar="MODEL",
    ),
]
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
