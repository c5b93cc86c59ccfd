"""`flowjax probability`, `flowjax lens` and `flowjax attention`: reading a model's layers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowjax.cli.options import Model, Out, Overwrite, asks_questions

if TYPE_CHECKING:
    from flowjax_experiments.selection import Selection

Layers = Annotated[
    list[int] | None,
    typer.Option(
        "--layer", help="A layer to draw on the frames, from 1; may be repeated. Default: four."
    ),
]
Drawn = Annotated[int, typer.Option(help="Samples whose frames are drawn: the first so many.")]


@asks_questions
def probability(
    model: Model,
    questions: "Selection",
    out: Out,
    top_k: Annotated[int, typer.Option(help="Most probable tokens kept per layer.")] = 10,
    overwrite: Overwrite = False,
) -> None:
    """Probability of the true and the false options, read after every layer."""
    from flowjax_experiments import probability as experiment

    experiment.run(experiment.Asked(model, questions, top_k), out, overwrite=overwrite)


@asks_questions
def lens(
    model: Model,
    questions: "Selection",
    out: Out,
    through: Annotated[
        str, typer.Option(help="input: the token embedding; output: final norm and output head.")
    ] = "input",
    top_k: Annotated[int, typer.Option(help="Most probable tokens kept per position.")] = 10,
    words: Annotated[
        Path | None,
        typer.Option(help="Words of your own: a file with sections [spatial] and [temporal]."),
    ] = None,
    layer: Layers = None,
    drawn: Drawn = 1,
    overwrite: Overwrite = False,
) -> None:
    """The words that video positions read as, at every layer."""
    from flowjax_experiments import lens as experiment

    asked = experiment.Asked(model, questions, through, top_k, words, tuple(layer or ()), drawn)
    experiment.run(asked, out, overwrite=overwrite)


@asks_questions
def attention(
    model: Model,
    questions: "Selection",
    out: Out,
    target: Annotated[
        str,
        typer.Option(help="The token group whose attention is read: last, option_A, question..."),
    ] = "last",
    layer: Layers = None,
    head: Annotated[
        str, typer.Option(help="mean, all, or numbers such as 0,3 (from 0), beside the mean.")
    ] = "mean",
    cut: Annotated[
        str | None,
        typer.Option(help="An edge to cut, such as 'video->question'; several at once as a+b."),
    ] = None,
    cut_layers: Annotated[
        str | None, typer.Option(help="Where, as FIRST-LAST from 1. Default: every layer.")
    ] = None,
    drawn: Drawn = 1,
    overwrite: Overwrite = False,
) -> None:
    """What chosen tokens read of the frames, with and without a knockout."""
    from flowjax_experiments import attention as experiment

    asked = experiment.Asked(
        model, questions, target, head, cut, cut_layers, tuple(layer or ()), drawn
    )
    experiment.run(asked, out, overwrite=overwrite)
