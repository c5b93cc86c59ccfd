"""Train the shapes pair: an image model, and the video model tuned from it.

    python -m flowjax_experiments.train_shapes OUT --seed 0

Four stages, each of which goes on where it was killed:

    text     questions that name their answer: finding an option's letter
    vision   the vision tower and the projector, with targets for every pooled token
    image    the decoder, with questions about single frames: the image model
    video    the decoder, with questions about videos and captions: the video model

OUT/image-model and OUT/video-model are checkpoints in Hugging Face format, in bfloat16.
"""

import argparse
import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from flowjax.compilation import use_persistent_cache
from flowjax.models.sharding import DATA
from flowjax.platforms import skip_absent_tpu
from flowjax.train.loop import Parameters, train
from flowjax_experiments.shapes.batches import Texts
from flowjax_experiments.shapes.model import (
    fresh_model,
    model_config,
    shapes_tokenizer,
    write_checkpoint,
)
from flowjax_experiments.shapes.recipe import STAGES, Recipe
from flowjax_experiments.shapes.stages import DenseHeads, Training

MODELS = ("image", "video")
"""Stages whose parameters are a model of the pair; they train the decoder alone."""

FROZEN = ("vision", "projector")
"""In those stages: what the vision stage taught is soon lost where nothing asks for it yet."""

VISION_MICRO = 8
"""Frames computed at a time in the vision stage: what the projector takes for one video."""


def run(
    out: Path, *, seed: int, recipe: Recipe, stop_at: int | None = None
) -> dict[str, Parameters]:
    """Train what is not finished, and write both models.

    Args:
        out: made if it does not exist.
        seed: of parameters, scenes, questions and noise.
        recipe: all numbers.
        stop_at: end the first stage that is not finished at this step, and everything with it.

    Returns:
        The parameters after each stage that is finished.

    Raises:
        FlowjaxError: a loss that is not finite.
    """
    use_persistent_cache()
    tokenizer = shapes_tokenizer()
    config = model_config(recipe, tokenizer)
    graph, state = nnx.split(fresh_model(config, seed))
    parameters: Parameters = nnx.to_pure_dict(state)
    texts = Texts(tokenizer, config, recipe.length, recipe.verdict_weight)
    training = Training(recipe, texts, seed)
    devices = Mesh(np.array(jax.devices()), (DATA,))
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(recipe) | {"seed": seed}, indent=1)
    (out / "recipe.json").write_text(text + "\n", encoding="utf-8")
    finished: dict[str, Parameters] = {}
    for stage in STAGES:
        vision = stage == "vision"
        heads_graph, heads = nnx.split(DenseHeads(recipe.width, recipe.grid, nnx.Rngs(seed)))
        start: Any = (parameters, nnx.to_pure_dict(heads)) if vision else parameters
        if vision:
            loss = training.vision_loss(heads_graph, graph)
        else:
            loss = (training.text_loss if stage == "text" else training.token_loss)(graph)
        trained = train(
            start,
            loss,
            training.batches(stage),
            recipe.schedule(stage),
            out / stage,
            seed=seed,
            micro=VISION_MICRO if vision else 1,
            save_every=recipe.save_every,
            log_every=recipe.log_every,
            frozen=FROZEN if stage in MODELS else (),
            stop_at=stop_at,
            mesh=devices,
        )
        if stop_at is not None and stop_at < recipe.schedule(stage).steps:
            break
        parameters = trained[0] if vision else trained
        finished[stage] = parameters
        if stage in MODELS:
            rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), parameters)
            shutil.rmtree(out / f"{stage}-model", ignore_errors=True)
            write_checkpoint(out / f"{stage}-model", nnx.merge(graph, rounded), recipe, tokenizer)
    return finished


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the shapes pair.")
    parser.add_argument("out", type=Path, help="folder to train in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop-at", type=int, help="end at this step of the stage in progress")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    run(arguments.out, seed=arguments.seed, recipe=Recipe(), stop_at=arguments.stop_at)


if __name__ == "__main__":
    skip_absent_tpu()
    main()
