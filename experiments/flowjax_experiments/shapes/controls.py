"""What is changed of the recipe to learn what an effect depends on."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from flowjax.data.shapes.scene import Numbers
from flowjax_experiments.shapes.batches import Examples, Wanted
from flowjax_experiments.shapes.recipe import Recipe
from flowjax_experiments.shapes.targets import Motions


@dataclass(frozen=True)
class Control:
    """One way to go on from the image model.

    seed: of scenes, questions and heads, beside that of the run.
    motion: whether there is a motion stage, and its loss in the video stage.
    layer: decoder layers after which motions are told; None for the recipe's.
    shuffled: motions told are those of another scene of the batch.
    kept: whether motions are told in the video stage too.
    hide: share of scenes whose questions cannot read the video in the first `HIDDEN` layers.
    questions: about videos, or about single frames only, without a video stage.
    """

    name: str
    seed: int = 0
    motion: bool = True
    layer: int | None = None
    shuffled: bool = False
    kept: bool = True
    hide: float = 0.0
    questions: Literal["video", "image"] = "video"


HIDDEN = 3
"""Early layers that `Control.hide` is about."""

MAIN = Control("main")

CONTROLS = (
    MAIN,
    Control("main, seed 1", seed=1),
    Control("no motion stage", motion=False),
    Control("no motion stage, seed 1", motion=False, seed=1),
    Control("motion after layer 2", layer=2),
    Control("motion after layer 6", layer=6),
    Control("shuffled motions", shuffled=True),
    Control("motions not kept", kept=False),
    Control("questions read late", hide=0.5),
    Control("questions read late, seed 1", hide=0.5, seed=1),
    Control("motion, no video questions", questions="image"),
)


def controlled(
    examples: Examples, control: Control, recipe: Recipe, stage: str, step: int
) -> tuple[Examples, Wanted]:
    """The batch of a step as a control has it, and what is asked of it.

    The examples are those of the stage, or in a step of the motion stage with questions about
    single frames, those of the image stage. They have no questions in the steps of the motion stage
    that are for motions alone.
    """
    size = len(examples.word)
    rng = np.random.default_rng([control.seed, step, 19])
    told = 0.0
    if stage == "motion" and not _asks_of_frames(control, recipe, stage, step):
        told = 1.0
    elif stage == "video" and control.motion and control.kept:
        told = recipe.motion_weight
    assert examples.packed is not None
    wanted = Wanted(
        layer=np.full(size, control.layer or recipe.motion_layer, np.int32),
        motion=np.full(size, told, np.float32),
        weight=examples.packed.weight.sum(-1).astype(np.float32),
        hide=rng.random(size) < (control.hide if stage == "video" else 0.0),
    )
    if control.shuffled:
        turned = np.roll(np.arange(size), 1)
        examples = examples._replace(motions=Motions(*(part[turned] for part in examples.motions)))
    if stage == "motion" and not asks(recipe, step):
        examples = examples._replace(packed=None)
    return examples, wanted


def asks(recipe: Recipe, step: int) -> bool:
    """Whether questions are asked in a step of the motion stage."""
    return step % recipe.ask_every == recipe.ask_every - 1


def _asks_of_frames(control: Control, recipe: Recipe, stage: str, step: int) -> bool:
    return control.questions == "image" and stage == "motion" and asks(recipe, step)


def stage_of(control: Control, recipe: Recipe, stage: str, step: int) -> str:
    """The stage whose scenes and questions a control has in a step."""
    return "image" if _asks_of_frames(control, recipe, stage, step) else stage


def repeated(examples: Examples, frames: int) -> Examples:
    """Scenes at one time as scenes at `frames` equal times."""

    def often(part: Numbers) -> np.ndarray:
        return np.repeat(part, frames, axis=-1)

    scenes = examples.scenes
    return examples._replace(
        scenes=scenes._replace(
            background=np.repeat(scenes.background, frames, axis=-2),
            **{name: often(getattr(scenes, name)) for name in ("x", "y", "radius", "visible")},
        ),
        known=often(examples.known),
        motions=examples.motions._replace(done=often(examples.motions.done)),
    )
