"""Train the pair and all its controls side by side, for one accelerator, and measure them.

    python -m flowjax_experiments.shapes.side_by_side OUT --seconds 400 --workers 14

The models are too small for an accelerator each, so that all controls are one program with a
leading axis. OUT gets

    training/          what `train_shapes` leaves, with the last two stages of all controls in one
    models/NAME/       every control's model, in Hugging Face format; `image`, too
    validation.parquet test.parquet     rows of `flowjax_experiments.shapes.effects`
    report.json        accuracies, steps and seconds

In the video stage it stops at `EARLY` steps to measure, and where `--seconds` would not suffice for
the rest it takes fewer steps, which `report.json` then says.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pyarrow.parquet as pq
from flax import nnx

from flowjax.compilation import use_persistent_cache
from flowjax.platforms import skip_absent_tpu
from flowjax.train.parameters import Parameters
from flowjax_experiments.shapes.controls import CONTROLS, MAIN
from flowjax_experiments.shapes.effects import (
    Cut,
    Questions,
    accuracy_by_cut,
    all_cuts,
    ask_all,
    effects,
    few_cuts,
)
from flowjax_experiments.shapes.model import write_checkpoint
from flowjax_experiments.shapes.recipe import Recipe
from flowjax_experiments.train_shapes import Means, Trainer

EARLY = 500
"""Steps of the video stage after which all is measured for the first time."""

LOG = logging.getLogger(__name__)


@dataclass
class Together:
    """One run.

    seconds: for all of it. measuring: kept for what comes after the training. per_task: questions.
    at_once: questions of all models computed at a time.
    """

    out: Path
    recipe: Recipe
    means: Means
    seconds: float
    measuring: float
    per_task: int
    at_once: int
    begun: float = field(default_factory=time.monotonic)
    report: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Train and measure."""
        trainer = Trainer(self.out / "training", 0, self.recipe, self.means)
        self._say("trainer", {"recipe": asdict(self.recipe), "device": str(jax.devices()[0])})
        parameters = trainer.fresh
        for stage in ("text", "vision", "image"):
            parameters = getattr(trainer, stage)(parameters, None)
            self._say(f"{stage} stage", {})
        image, layers = parameters, self.recipe.layers
        validation = ask_all(trainer.texts, split="validation", per_task=self.per_task)
        decoders = {"image": image["decoder"]}
        self._measure(trainer, image, decoders, validation, few_cuts(layers)[:1], "image model")
        self._save(trainer, image, decoders)

        moved = [control for control in CONTROLS if control.motion]
        starts = [trainer.start(image, control) for control in moved]
        ends = trainer.tune("motion", image, starts, moved)
        after = {control.name: end for control, end in zip(moved, ends, strict=True)}
        self._say("motion stage", {})
        decoders |= {
            control.name: after[control.name]["decoder"]
            for control in moved
            if control.questions == "image"
        }
        decoders["after the motion stage"] = after[MAIN.name]["decoder"]
        self._save(trainer, image, decoders)

        asked = [control for control in CONTROLS if control.questions == "video"]
        starts = [after.get(control.name) or trainer.start(image, control) for control in asked]
        for stop in (min(EARLY, self.recipe.video.steps // 2), None):
            ends = trainer.tune("video", image, starts, asked, stop)
            tuned = dict(
                zip([of.name for of in asked], (end["decoder"] for end in ends), strict=True)
            )
            self._say("video stage", {"steps": stop or self.recipe.video.steps})
            if stop is not None:
                late = trainer.asked_at[-stop // 2 :]
                self._measure(trainer, image, tuned, validation, few_cuts(layers), f"{stop} steps")
                self._fit(trainer, (late[-1] - late[0]) / max(1, len(late) - 1))
        decoders |= tuned
        self._save(trainer, image, decoders)
        test = ask_all(trainer.texts, split="test", per_task=self.per_task)
        every, few = all_cuts(layers), few_cuts(layers)
        self._measure(trainer, image, decoders, validation, few, "validation")
        self._measure(trainer, image, decoders, test, every, "test")

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self.begun

    def _fit(self, trainer: Trainer, rate: float) -> None:
        """Take as many steps of the video stage as there is time for."""
        left = self.seconds - self.measuring - self._elapsed
        steps = int(min(self.recipe.video.steps, EARLY + max(0, left / max(rate, 1e-6))))
        if steps < self.recipe.video.steps:
            self.recipe = replace(self.recipe, video=replace(self.recipe.video, steps=steps))
            trainer.recipe = self.recipe
        self._say("video stage's length", {"seconds a step": rate, "steps": steps})

    def _measure(
        self,
        trainer: Trainer,
        image: Parameters,
        decoders: dict[str, Parameters],
        questions: Questions,
        cuts: list[Cut],
        name: str,
    ) -> None:
        rows = effects(
            trainer.texts, trainer.graph, image, decoders, questions, cuts, at_once=self.at_once
        )
        pq.write_table(rows, self.out / f"{name.replace(' ', '-')}.parquet", compression="zstd")
        found = accuracy_by_cut(rows)
        for model, by_task in found.items():
            line = "  ".join(
                f"{task[:12]} " + "/".join(f"{share:.2f}" for share in list(of.values())[:4])
                for task, of in by_task.items()
            )
            LOG.info("%s: %s: %s", name, model, line)
        self._say(name, {"accuracy": found})

    def _save(self, trainer: Trainer, image: Parameters, decoders: dict[str, Parameters]) -> None:
        for name, decoder in decoders.items():
            folder = self.out / "models" / name.replace(",", "").replace(" ", "-")
            if not folder.exists():
                rounded = jax.tree.map(
                    lambda leaf: leaf.astype(jnp.bfloat16), {**image, "decoder": decoder}
                )
                model = nnx.merge(trainer.graph, rounded)
                write_checkpoint(folder, model, self.recipe, trainer.tokenizer)

    def _say(self, name: str, found: dict[str, Any]) -> None:
        self.report[name] = found | {"elapsed": round(self._elapsed, 1)}
        LOG.info("%s: %.1f s", name, self._elapsed)
        text = json.dumps(self.report, indent=1)
        (self.out / "report.json").write_text(text + "\n", encoding="utf-8")


def compile_ahead(out: Path, recipe: Recipe, means: Means, per_task: int, at_once: int) -> None:
    """Compile what comes after the text stage into the cache, with parameters not trained yet."""
    trainer = Trainer(out, 0, recipe, means)
    image, layers = trainer.fresh, recipe.layers
    trainer.vision(image, 1)
    trainer.image(image, 1)
    moved = [control for control in CONTROLS if control.motion]
    asked = [control for control in CONTROLS if control.questions == "video"]
    starts = [trainer.start(image, control) for control in asked]
    trainer.tune("video", image, starts, asked, 1)
    starts = [trainer.start(image, control) for control in moved]
    trainer.tune("motion", image, starts, moved, recipe.ask_every)
    for split, count in (("validation", len(asked)), ("test", len(asked) + 3)):
        questions = ask_all(trainer.texts, split=split, per_task=per_task)
        some = Questions(questions.layout, dict(list(questions.of.items())[:1]))
        for models in {count, len(asked) + 3}:
            decoders = {str(index): image["decoder"] for index in range(models)}
            effects(
                trainer.texts, trainer.graph, image, decoders, some, few_cuts(layers)[:1],
                at_once=at_once,
            )  # fmt: skip


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train and measure the pair and its controls.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for all of it")
    parser.add_argument("--measuring", type=float, default=60, help="seconds kept for measuring")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches")
    parser.add_argument("--per-task", type=int, default=200, help="questions of each task")
    parser.add_argument("--at-once", type=int, default=200, help="questions computed at a time")
    parser.add_argument("--ahead", action="store_true", help="only compile")
    parser.add_argument("--tiny", action="store_true", help="a few steps of a tiny model")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    logging.getLogger("absl").setLevel(logging.WARNING)
    use_persistent_cache()
    recipe = (
        tiny() if arguments.tiny else replace(Recipe(), chunk=172, save_every=EARLY, log_every=50)
    )
    means = Means(recipe.batch, recipe.vision_batch, remat=False, workers=arguments.workers)
    if arguments.ahead:
        few = replace(means, workers=0)
        compile_ahead(arguments.out / "ahead", recipe, few, arguments.per_task, arguments.at_once)
        return
    (arguments.out / "models").mkdir(parents=True, exist_ok=True)
    ahead = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--ahead"],
        env=os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.35"},
    )
    try:
        Together(
            arguments.out, recipe, means, arguments.seconds, arguments.measuring,
            arguments.per_task, arguments.at_once,
        ).run()  # fmt: skip
    finally:
        ahead.kill()


def tiny() -> Recipe:
    """To try this out."""
    few = replace(Recipe().video, steps=4, warmup=1)
    return Recipe(
        image_size=24, vision_width=16, vision_layers=1, width=32, mlp_width=32, layers=4, heads=2,
        motion_layer=1, vision_batch=16, batch=2, save_every=2, log_every=1,
        text=few, vision=few, image=few, motion=few, video=few,
    )  # fmt: skip


if __name__ == "__main__":
    skip_absent_tpu()
    main()
