"""`flowjax diagnose`."""

from typing import TYPE_CHECKING, Annotated

import typer

from flowjax.cli.options import Model, Out, Overwrite, asks_questions

if TYPE_CHECKING:
    from flowjax_experiments.selection import Selection


@asks_questions
def diagnose(
    model: Model,
    questions: "Selection",
    out: Out,
    window: Annotated[int, typer.Option(help="Layers cut at a time.")] = 9,
    overwrite: Overwrite = False,
) -> None:
    """Whether wrong answers come from cross-frame interaction or from a single frame."""
    from flowjax_experiments import diagnose as experiment

    experiment.run(experiment.Asked(model, questions, window), out, overwrite=overwrite)
