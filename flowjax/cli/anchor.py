"""`flowjax anchor`."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.cli.options import Model, Out, Overwrite


def anchor(
    model: Model,
    out: Out,
    video: Annotated[Path | None, typer.Option(help="A video file, for one question.")] = None,
    question: Annotated[str | None, typer.Option(help="The question.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option; none where the question is open.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A benchmark in TVBench's layout: json/ and video/.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task of it; may be repeated. Default: all.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many questions per task.")] = None,
    is_open: Annotated[
        bool, typer.Option("--open/--options", help="Ask a benchmark's questions without options.")
    ] = True,
    token: Annotated[int, typer.Option(help="Which generated token is traced, from 1.")] = 1,
    edges: Annotated[
        list[str] | None,
        typer.Option(help="An edge set; may be repeated. Default: cross-frame and vql-to-ql."),
    ] = None,
    edge: Annotated[
        list[str] | None, typer.Option(help="An edge of your own, as in `flowjax sweep`.")
    ] = None,
    window: Annotated[int, typer.Option(help="Layers cut at a time.")] = 9,
    overwrite: Overwrite = False,
) -> None:
    """Cut attention edges and watch the probability of a token of a generated answer."""
    from flowjax_experiments import open_ended as experiment

    asked = experiment.Asked(
        model=model,
        token=token,
        edge_sets=tuple(edges or ()),
        edges=tuple(edge or ()),
        window=window,
        data=data,
        tasks=tuple(task or ()),
        limit=limit,
        is_open=is_open,
        video=video,
        question=question,
        options=tuple(option or ()),
    )
    experiment.run(asked, out, overwrite=overwrite)
