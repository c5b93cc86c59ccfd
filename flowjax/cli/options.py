"""Options that several subcommands share."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flowjax_experiments.selection import Selection

Model = Annotated[Path, typer.Argument(help="A converted model: the OUT of `flowjax convert`.")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")]
Memory = Annotated[
    str | None, typer.Option(help="Device memory for kept states and one batch, such as 8GB.")
]


def _questions(
    data: Annotated[
        Path | None, typer.Option(help="A benchmark in TVBench's layout: json/ and video/.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task of it; may be repeated. Default: all.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many questions per task.")] = None,
    samples: Annotated[
        str | None, typer.Option(help="correct, wrong or all, by the model's own answer.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first video that cannot be read.")
    ] = False,
    video: Annotated[Path | None, typer.Option(help="A video file, for one question.")] = None,
    question: Annotated[str | None, typer.Option(help="The question, without its options.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option; give one per option, in order.")
    ] = None,
    answer: Annotated[str | None, typer.Option(help="Letter of the true option.")] = None,
) -> "Selection":
    from flowjax_experiments.selection import Selection

    return Selection(
        data=data,
        tasks=tuple(task or ()),
        limit=limit,
        samples=samples,
        strict=strict,
        video=video,
        question=question,
        options=tuple(option or ()),
        answer=answer,
    )


def asks_questions(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that takes `questions: Selection` the options that choose them instead."""
    own = inspect.signature(command)
    choosing = inspect.signature(_questions).parameters

    @functools.wraps(command)
    def run(**arguments: Any) -> Any:  # noqa: ANN401 - whatever the command takes and gives
        chosen = {name: arguments.pop(name) for name in choosing}
        return command(**arguments, questions=_questions(**chosen))

    parameters = [p for name, p in own.parameters.items() if name != "questions"]
    required = [p for p in parameters if p.default is p.empty]
    optional = [p for p in parameters if p.default is not p.empty]
    every = [*required, *choosing.values(), *optional]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in every]
    run.__signature__ = own.replace(parameters=keyword)  # pyright: ignore[reportAttributeAccessIssue] - inspect reads it
    run.__annotations__ = {p.name: p.annotation for p in keyword}
    return run
