"""`flowjax exit`."""

from typing import TYPE_CHECKING

from flowjax.cli.options import Model, Out, Overwrite, asks_questions

if TYPE_CHECKING:
    from flowjax_experiments.selection import Selection


@asks_questions
def early_exit(
    model: Model, questions: "Selection", out: Out, overwrite: Overwrite = False
) -> None:
    """The layer from which answers no longer change, and what a rule that stops there saves."""
    from flowjax_experiments import early_exit as experiment

    experiment.run(experiment.Asked(model, questions), out, overwrite=overwrite)
