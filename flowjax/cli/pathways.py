"""`flowjax pathways`: which edges an answer needs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowjax.cli.options import Model, Out, Overwrite, asks_questions

if TYPE_CHECKING:
    from flowjax_experiments.selection import Selection

app = typer.Typer(help="Which edges an answer needs.", no_args_is_help=True)


@app.command()
@asks_questions
def evaluate(
    model: Model,
    questions: "Selection",
    out: Out,
    pathway: Annotated[
        str | None,
        typer.Option(help="A preset's name, or a JSON file. Default: the paper's for this model."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(help="paper, strict or both. Default: both, but a file's own form."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How often random edges are drawn.")] = 3,
    overwrite: Overwrite = False,
) -> None:
    """Answers with only a pathway's edges, beside all edges and as many random ones."""
    from flowjax_experiments import pathways as experiment

    asked = experiment.Asked(model, questions, pathway, form, seeds)
    experiment.run(asked, out, overwrite=overwrite)


@app.command()
@asks_questions
def find(
    model: Model,
    questions: "Selection",
    out: Out,
    sweep: Annotated[Path, typer.Option(help="Folder of a finished sweep of the model.")],
    threshold: Annotated[
        list[float] | None,
        typer.Option(help="Fall of the probability in percent; may be repeated."),
    ] = None,
    form: Annotated[str, typer.Option(help="paper or strict.")] = "strict",
    tolerance: Annotated[
        float, typer.Option(help="Accuracy that the chosen pathway may lose, 0 to 1.")
    ] = 0.02,
    seeds: Annotated[int, typer.Option(help="How often random edges are drawn.")] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Find a pathway in a sweep's results on half of the samples; judge it on the other half."""
    from flowjax_experiments import pathways_find as experiment

    asked = experiment.Asked(
        model, questions, sweep, tuple(threshold or ()), form, tolerance, seeds
    )
    experiment.run(asked, out, overwrite=overwrite)
