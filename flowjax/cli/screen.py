"""`flowjax screen`."""

from typing import TYPE_CHECKING, Annotated

import typer

from flowjax.cli.options import Model, Out, Overwrite, asks_questions

if TYPE_CHECKING:
    from flowjax_experiments.selection import Selection


@asks_questions
def screen(
    model: Model,
    questions: "Selection",
    out: Out,
    top: Annotated[
        int, typer.Option(help="Gates checked by exact knockouts, and as many at random.")
    ] = 50,
    heads: Annotated[
        bool, typer.Option("--heads/--no-heads", help="A gate for each head, or one for all.")
    ] = True,
    groups: Annotated[
        str, typer.Option(help="parts (system, video, instruction, question, last) or cells.")
    ] = "parts",
    overwrite: Overwrite = False,
) -> None:
    """Predict the effect of every edge, layer and head from one gradient; check the largest."""
    from flowjax_experiments import screen as experiment

    asked = experiment.Asked(model, questions, top, heads, groups)
    experiment.run(asked, out, overwrite=overwrite)
