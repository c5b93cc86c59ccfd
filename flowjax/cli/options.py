"""Options that several subcommands share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flowjax.hosts.detect import Processes


def remote(text: str) -> Path:
    """A path that may be in an object store; what it needs is imported for those alone."""
    if "://" not in text:
        return Path(text)
    from flowjax.paths import as_path

    return as_path(text)


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
Coordinator = Annotated[
    str | None,
    typer.Option(
        help="Address and port of process 0, where JAX does not know the cluster.",
        envvar="JAX_COORDINATOR_ADDRESS",
    ),
]
NumProcesses = Annotated[
    int | None, typer.Option(help="How many were started.", envvar="JAX_NUM_PROCESSES", min=1)
]
ProcessId = Annotated[
    int | None, typer.Option(help="Which of them this is, from 0.", envvar="JAX_PROCESS_ID")
]


def as_one_of(started: "Processes | None", run: Callable[[], object]) -> None:
    """Run a command as one of the processes that were started together, and end with them."""
    from flowjax.hosts.join import joined
    from flowjax.hosts.supervise import is_supervised, supervise

    if started is not None and not is_supervised():
        raise typer.Exit(supervise())
    with joined(started):
        run()
