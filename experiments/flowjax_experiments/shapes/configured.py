"""The shapes recipe as a configuration of `flowjax train`: `pair.toml` has all its numbers."""

from dataclasses import dataclass, field
from pathlib import Path

from flowjax.errors import FlowjaxError
from flowjax.train.toml import read_toml
from flowjax_experiments.shapes.controls import CONTROLS, MAIN
from flowjax_experiments.shapes.recipe import Recipe
from flowjax_experiments.train_shapes import Means, run

RECIPE = "shapes"
SHIPPED = Path(__file__).with_name("pair.toml")
"""The recipe of the shipped pair."""


@dataclass(frozen=True)
class Configured:
    """What a file says.

    recipe: `shapes`.
    out: the folder of the run.
    seed: of parameters, scenes, questions and noise.
    control: what is changed of the last two stages, by name.
    numbers: of models and stages.
    means: with what it is computed.
    """

    recipe: str
    out: Path
    seed: int = 0
    control: str = MAIN.name
    numbers: Recipe = field(default_factory=Recipe)
    means: Means = field(default_factory=Means)

    def __post_init__(self) -> None:
        """Check the names."""
        if self.recipe != RECIPE:
            raise FlowjaxError(
                f"recipe is {self.recipe!r}; {RECIPE!r} is the only one, and without the field a "
                "converted model is tuned on instructions"
            )
        names = [control.name for control in CONTROLS]
        if self.control not in names:
            raise FlowjaxError(f"control is {self.control!r}; choose {', '.join(names)}")


def run_configured(path: Path, *, stop_at: int | None = None) -> Path | None:
    """Train what is not finished of a recipe; see `flowjax_experiments.train_shapes.run`.

    Returns:
        The checkpoint of the video model, or of the last that the control has; None if it is not
        finished.
    """
    given = read_toml(path, Configured)
    (control,) = (one for one in CONTROLS if one.name == given.control)
    finished = run(
        given.out,
        seed=given.seed,
        recipe=given.numbers,
        control=control,
        stop_at=stop_at,
        means=given.means,
    )
    last = "image" if control.questions == "image" else "video"
    return given.out / f"{last}-model" if last in finished else None
