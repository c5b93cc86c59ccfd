"""Train the shapes pair: an image model, and the video model tuned from it.

    python -m flowjax_experiments.train_shapes OUT --seed 0

Five stages, each of which goes on where it was killed:

    text     questions that name their answer: finding an option's letter
    vision   the vision tower and the projector, with targets for every pooled token
    image    the decoder, with questions about single frames: the image model
    motion   the decoder; video tokens tell in its middle what happens to the things they show
    video    the decoder, with questions about videos and captions: the video model

OUT/image-model and OUT/video-model are checkpoints in Hugging Face format, in bfloat16. With
`--control NAME` the last two stages are those of one of `flowjax_experiments.shapes.controls`, and
OUT/video-model is its model.
"""

import argparse
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tokenizers import Tokenizer

from flowjax.compilation import use_persistent_cache
from flowjax.mesh import DATA
from flowjax.platforms import skip_absent_tpu
from flowjax.train.ahead import Ahead, Draw, drawers
from flowjax.train.loop import train
from flowjax.train.parameters import Parameters
from flowjax.train.step import LossOf
from flowjax_experiments.shapes.batches import Stream
from flowjax_experiments.shapes.controls import (
    CONTROLS,
    MAIN,
    Control,
    controlled,
    repeated,
    stage_of,
)
from flowjax_experiments.shapes.heads import DenseHeads, MotionHeads
from flowjax_experiments.shapes.model import (
    fresh_model,
    model_config,
    shapes_tokenizer,
    write_checkpoint,
)
from flowjax_experiments.shapes.recipe import STAGES, Recipe
from flowjax_experiments.shapes.stages import Shown, Training
from flowjax_experiments.shapes.texts import Texts

MODELS = ("image", "video")
"""Stages whose parameters are a model of the pair."""

TUNED = ("image", "motion", "video")
"""Stages that train the decoder alone: what the vision stage taught is soon lost where nothing asks
for it yet."""


@dataclass(frozen=True)
class Means:
    """With what a run is computed, on which nothing of it depends but last bits.

    micro: scenes that a device computes at a time. vision_micro: frames in the vision stage, whole
    videos of them. remat: compute layers anew in backward passes. workers: processes that draw
    batches; 0 for none.
    """

    micro: int = 1
    vision_micro: int = 8
    remat: bool = True
    workers: int = 0


class Trainer:
    """The stages of one recipe and seed in one folder."""

    def __init__(self, out: Path, seed: int, recipe: Recipe, means: Means = Means()) -> None:
        self.out, self.seed, self.recipe, self.means = out, seed, recipe, means
        self.tokenizer: Tokenizer = shapes_tokenizer()
        config = model_config(recipe, self.tokenizer)
        self.graph, state = nnx.split(fresh_model(config, seed))
        self.fresh: Parameters = nnx.to_pure_dict(state)
        self.texts = Texts(
            self.tokenizer, config, recipe.length, recipe.text_length, recipe.verdict_weight
        )
        self.training = Training(recipe, self.texts, self.graph, means.remat)
        self._pool = drawers(means.workers) if means.workers else None
        self.asked_at: list[float] = []
        """When batches of the decoder's stages were asked for, in seconds."""

    def close(self) -> None:
        """End the processes that draw batches."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def text(self, parameters: Parameters, stop_at: int | None) -> Parameters:
        """The text stage."""
        loss = self.training.text_loss()
        return self._train("text", parameters, loss, stop_at, micro=self.means.micro)

    def vision(self, parameters: Parameters, stop_at: int | None) -> Parameters:
        """The vision stage."""
        graph, heads = nnx.split(
            DenseHeads(self.recipe.width, self.recipe.grid, nnx.Rngs(self.seed))
        )
        start = {"model": {**parameters}, "heads": nnx.to_pure_dict(heads)}
        decoder = start["model"].pop("decoder")
        loss = self.training.vision_loss(graph, decoder)
        return {
            **self._train("vision", start, loss, stop_at, micro=self.means.vision_micro)["model"],
            "decoder": decoder,
        }

    def image(self, parameters: Parameters, stop_at: int | None) -> Parameters:
        """The image stage."""
        loss = self.training.decoder_loss(parameters)
        start = {"decoder": parameters["decoder"]}
        return {**parameters, **self._tune("image", start, loss, parameters, (MAIN,), stop_at)}

    def tune(
        self,
        stage: str,
        image: Parameters,
        starts: Sequence[Parameters],
        controls: Sequence[Control],
        stop_at: int | None = None,
    ) -> list[Parameters]:
        """The motion or the video stage of some controls, side by side.

        Args:
            stage: `motion` or `video`.
            image: the image model's parameters.
            starts: of every control, its `decoder` and `heads`.
            controls: one or more.
            stop_at: see `run`.
        """
        graph, _ = nnx.split(self.heads(0))
        loss = self.training.decoder_loss(image, graph)
        if len(controls) == 1:
            return [self._tune(stage, starts[0], loss, image, controls, stop_at)]
        start = jax.tree.map(lambda *parts: jnp.stack(parts), *starts)
        found = self._tune(stage, start, loss, image, controls, stop_at)
        leaves, structure = jax.tree.flatten(found)
        return [structure.unflatten(of_one) for of_one in zip(*leaves, strict=True)]

    def heads(self, seed: int) -> MotionHeads:
        """Those of the motion stage, not trained yet."""
        return MotionHeads(self.recipe.width, nnx.Rngs(self.seed + seed))

    def start(self, image: Parameters, control: Control) -> Parameters:
        """What a control begins with."""
        heads = nnx.to_pure_dict(nnx.state(self.heads(control.seed)))
        return {"decoder": image["decoder"], "heads": heads}

    def save(self, name: str, parameters: Parameters) -> None:
        """Write the model NAME-model."""
        rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), parameters)
        folder = self.out / f"{name}-model"
        shutil.rmtree(folder, ignore_errors=True)
        write_checkpoint(folder, nnx.merge(self.graph, rounded), self.recipe, self.tokenizer)

    def _tune(
        self,
        stage: str,
        start: Parameters,
        loss: LossOf,
        image: Parameters,
        controls: Sequence[Control],
        stop_at: int | None,
    ) -> Parameters:
        """Train on what the frozen tower of the image model shows of every scene."""
        recipe, tower = self.recipe, self.training.tower(image)
        steps = range(recipe.ask_every if stage == "motion" else 1)
        kinds = list(
            dict.fromkeys(
                (stage_of(control, recipe, stage, step), self.seed + control.seed)
                for control in controls
                for step in steps
            )
        )
        streams = [Stream(self.texts, recipe, name, seed) for name, seed in kinds]
        ahead = Ahead(streams, self._pool, depth=4 * self.means.workers)
        noise = jax.random.fold_in(jax.random.key(self.seed), STAGES.index(stage))

        def batch_at(step: int) -> Shown:
            self.asked_at.append(time.monotonic())
            wanted = [
                kinds.index((stage_of(control, recipe, stage, step), self.seed + control.seed))
                for control in controls
            ]
            drawn = {index: ahead(index, step) for index in dict.fromkeys(wanted)}
            video = {
                index: tower(examples.scenes, jax.random.fold_in(noise, step))
                for index, examples in drawn.items()
            }
            shown = []
            for control, index in zip(controls, wanted, strict=True):
                examples = drawn[index]
                if stage != "image" and kinds[index][0] == "image":
                    examples = repeated(examples, recipe.frames)
                asked = controlled(examples, control, recipe, stage, step)
                shown.append(Shown(*asked, video[index]))
            if len(controls) == 1:
                return shown[0]
            host = [one._replace(video=np.zeros(())) for one in shown]
            stacked = jax.tree.map(lambda *parts: np.stack(parts), *host)
            return stacked._replace(video=jnp.stack([one.video for one in shown]))

        try:
            return self._train(
                stage, start, loss, stop_at, batch_at,
                micro=self.means.micro, side_by_side=len(controls) > 1,
            )  # fmt: skip
        finally:
            ahead.close()

    def _train(
        self,
        stage: str,
        start: Parameters,
        loss: LossOf,
        stop_at: int | None,
        batch_at: Draw | None = None,
        *,
        micro: int,
        side_by_side: bool = False,
    ) -> Parameters:
        stream = Stream(self.texts, self.recipe, stage, self.seed)
        ahead = Ahead([stream], self._pool, depth=4 * self.means.workers)
        try:
            return train(
                start,
                loss,
                batch_at or (lambda step: ahead(0, step)),
                self.recipe.schedule(stage),
                self.out / stage,
                seed=self.seed,
                micro=micro,
                save_every=self.recipe.save_every,
                log_every=self.recipe.log_every,
                stop_at=stop_at,
                mesh=Mesh(np.array(jax.devices()), (DATA,)),
                side_by_side=side_by_side,
            )
        finally:
            ahead.close()


def run(
    out: Path,
    *,
    seed: int,
    recipe: Recipe,
    control: Control = MAIN,
    stop_at: int | None = None,
    means: Means = Means(),
) -> dict[str, Parameters]:
    """Train what is not finished, and write both models.

    Args:
        out: made if it does not exist.
        seed: of parameters, scenes, questions and noise.
        recipe: all numbers.
        control: what is changed of the last two stages.
        stop_at: end the first stage that is not finished at this step, and everything with it.
        means: with what it is computed.

    Returns:
        The parameters after each stage that is finished.

    Raises:
        FlowjaxError: a loss that is not finite.
    """
    use_persistent_cache()
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(out, seed, recipe, means)
    text = json.dumps(asdict(recipe) | {"seed": seed, "control": control.name}, indent=1)
    (out / "recipe.json").write_text(text + "\n", encoding="utf-8")
    try:
        return _every_stage(trainer, control, stop_at)
    finally:
        trainer.close()


def _every_stage(trainer: Trainer, control: Control, stop_at: int | None) -> dict[str, Parameters]:
    finished: dict[str, Parameters] = {}
    parameters, tuned = trainer.fresh, None
    for stage in STAGES:
        if stage == "motion" and not control.motion:
            continue
        if stage == "video" and control.questions == "image":
            continue
        if stage in ("motion", "video"):
            image = finished["image"]
            tuned = tuned or trainer.start(image, control)
            (tuned,) = trainer.tune(stage, image, [tuned], [control], stop_at)
            parameters = {**image, "decoder": tuned["decoder"]}
        else:
            parameters = getattr(trainer, stage)(parameters, stop_at)
        if stop_at is not None and stop_at < trainer.recipe.schedule(stage).steps:
            break
        finished[stage] = parameters
        if stage in MODELS:
            trainer.save(stage, parameters)
    return finished


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the shapes pair.")
    parser.add_argument("out", type=Path, help="folder to train in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop-at", type=int, help="end at this step of the stage in progress")
    names = [control.name for control in CONTROLS]
    parser.add_argument("--control", choices=names, default=MAIN.name, help="of the recipe")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches")
    parser.add_argument("--micro", type=int, default=1, help="scenes that are computed at a time")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    run(
        arguments.out,
        seed=arguments.seed,
        recipe=Recipe(),
        control=CONTROLS[names.index(arguments.control)],
        stop_at=arguments.stop_at,
        means=Means(arguments.micro, remat=arguments.micro == 1, workers=arguments.workers),
    )


if __name__ == "__main__":
    skip_absent_tpu()
    main()
