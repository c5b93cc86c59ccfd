"""`flowjax compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowjax.cli.options import Out, Overwrite, asks_questions

if TYPE_CHECKING:
    from flowjax_experiments.selection import Selection


@asks_questions
def compare(
    model_a: Annotated[Path, typer.Argument(help="A converted model, such as an image model.")],
    model_b: Annotated[Path, typer.Argument(help="Another checkpoint of its architecture.")],
    questions: "Selection",
    out: Out,
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
    """The same knockouts on two checkpoints, paired over samples; accuracy without cross-frame."""
    from flowjax_experiments import compare as experiment

    asked = experiment.Asked(
        model_a, model_b, questions, tuple(edges or ()), tuple(edge or ()), window
    )
    experiment.run(asked, out, overwrite=overwrite)
