"""`flowjax sweep` and `flowjax figures`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowjax.cli.options import Memory, Model, Overwrite, asks_questions
from flowjax.errors import FlowjaxError

if TYPE_CHECKING:
    from flowjax_experiments.selection import Selection


@asks_questions
def sweep(
    model: Model,
    questions: "Selection",
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    edges: Annotated[
        list[str] | None,
        typer.Option(help="An edge set of the paper; may be repeated. Default: all four."),
    ] = None,
    edge: Annotated[
        list[str] | None,
        typer.Option(
            help="An edge of your own, such as 'frame_0->question_stem'; several at once as a+b; "
            "'question_stem[*]' is each of its tokens."
        ),
    ] = None,
    heads: Annotated[
        str | None, typer.Option(help="Cut heads one by one: all, or numbers such as 0,3,5.")
    ] = None,
    window: Annotated[int, typer.Option(help="Layers cut at a time.")] = 9,
    style: Annotated[str, typer.Option(help="center, inverse, top_down or bottom_up.")] = "center",
    memory: Memory = None,
    mesh: Annotated[
        str | None,
        typer.Option(help="Devices as DATAxMODEL: windows over DATA, tensor parallel over MODEL."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what the first question costs and stop.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Cut attention edges in every window of layers and watch the answer's probability."""
    from flowjax_experiments import information_flow

    asked = information_flow.Asked(
        model=model,
        questions=questions,
        edge_sets=tuple(edges or ()),
        edges=tuple(edge or ()),
        width=window,
        style=style,
        heads=heads,
        memory=memory,
        mesh=mesh,
    )
    if plan:
        information_flow.print_plan(asked)
    elif out is None:
        raise FlowjaxError("sweep needs --out, the folder of the run (or --plan)")
    else:
        information_flow.run(asked, out, overwrite=overwrite)


def figures(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
) -> None:
    """Draw a run's figures and print its summary again, from its results alone."""
    from flowjax_experiments.redraw import redraw

    redraw(run)
