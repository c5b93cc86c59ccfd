"""What each stage of the training minimises."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array

from flowjax.data.shapes.scene import Tracks
from flowjax.data.shapes.world import BACKGROUNDS, COLOURS, SHAPES
from flowjax.models.decoder import Decoder
from flowjax.train.loop import LossOf, Parameters, Sums
from flowjax.train.loss import TokenLoss, token_loss
from flowjax.train.packing import Packed
from flowjax_experiments.shapes.batches import (
    DenseTargets,
    Examples,
    Texts,
    dense_targets,
    draw_drills,
    draw_examples,
    draw_frames,
    pixel_values,
    shares,
)
from flowjax_experiments.shapes.model import MEAN, STD
from flowjax_experiments.shapes.recipe import Recipe


class DenseHeads(nnx.Module):
    """Linear readings of pooled tokens, used in the vision stage only."""

    def __init__(self, width: int, cells: int, rngs: nnx.Rngs) -> None:
        self.thing = nnx.Linear(width, len(COLOURS) * len(SHAPES), rngs=rngs)
        self.colour = nnx.Linear(width, len(COLOURS), rngs=rngs)
        self.shape = nnx.Linear(width, len(SHAPES), rngs=rngs)
        self.place = nnx.Linear(width, 3, rngs=rngs)
        self.background = nnx.Linear(width, len(BACKGROUNDS), rngs=rngs)
        self.cell = nnx.Linear(width, cells * cells, rngs=rngs)

    def sums(self, tokens: Array, targets: DenseTargets) -> Sums:
        """Losses of one scene's frames; tokens [frames, cells, width].

        Metrics are the mean losses, and how often the look, colour and shape of a thing that lies
        mostly in a cell are named right.
        """
        frames = jnp.asarray(float(len(tokens)))
        by_colour = targets.thing.reshape(*targets.thing.shape[:-1], -1, len(SHAPES))
        colours, shapes = jnp.sum(by_colour, -1), jnp.sum(by_colour, -2)
        looks = [
            (self.thing(tokens), targets.thing),
            (self.colour(tokens), colours),
            (self.shape(tokens), shapes),
        ]
        thing = jnp.zeros(tokens.shape[:2])
        for scores, share in looks:
            losses = optax.sigmoid_binary_cross_entropy(scores, jnp.minimum(share, 1))
            thing = thing + jnp.sum(losses, -1)
        there = targets.place[..., 3]
        error = jnp.sum(jnp.abs(self.place(tokens) - targets.place[..., :3]), -1) * there
        place = jnp.sum(error, -1) / jnp.maximum(jnp.sum(there, -1), 1)
        labels = jnp.broadcast_to(targets.background[:, None], tokens.shape[:2])
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        background = cross_entropy(self.background(tokens), labels)
        cells = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape[:2])
        cell = cross_entropy(self.cell(tokens), cells)
        loss = jnp.mean(thing + 0.3 * background + 0.3 * cell, -1) + 5 * place
        mostly = (jnp.max(targets.thing, -1) > 0.5).astype(jnp.float32)
        parts = {"thing": thing, "place": place[:, None], "background": background, "cell": cell}
        metrics = {name: (jnp.sum(jnp.mean(x, -1)), frames) for name, x in parts.items()}
        for name, (scores, share) in zip(("thing", "colour", "shape"), looks, strict=True):
            right = jnp.argmax(scores, -1) == jnp.argmax(share, -1)
            metrics[f"{name}_right"] = (jnp.sum(right * mostly), jnp.sum(mostly))
        return Sums(jnp.sum(loss), frames, metrics)


@dataclass(frozen=True)
class Training:
    """What the stages share."""

    recipe: Recipe
    texts: Texts
    seed: int

    def batches(self, stage: str) -> Callable[[int], Any]:
        """The batches of a stage: `Packed`, `Tracks` of single frames, or `Examples`."""
        easy = self.recipe.alone * self.recipe.schedule(stage).steps

        def drills(step: int) -> Packed:
            return draw_drills(self.texts, self.recipe.batch, seed=self.seed, step=step)

        def frames(step: int) -> Tracks:
            size = self.recipe.vision_batch
            return draw_frames(size, seed=self.seed, step=step, alone=step < easy)

        def examples(step: int) -> Examples:
            size, alone = self.recipe.batch, step < easy
            return draw_examples(self.texts, stage, size, seed=self.seed, step=step, alone=alone)

        return {"text": drills, "vision": frames}.get(stage, examples)

    def frames(self, scenes: Tracks, key: Array) -> Array:
        """Pixel values of a batch."""
        return pixel_values(scenes, key, self.recipe.image_size, MEAN, STD)

    def text_loss(self, graph: nnx.GraphDef) -> LossOf:
        """Of the text stage."""

        def loss(parameters: Parameters, packed: Packed, key: Array) -> Sums:
            del key
            decoder = nnx.merge(graph, parameters).decoder

            def one(packed: Packed) -> Sums:
                x = decoder.embedding(jnp.asarray(packed.ids))
                found = self._losses(decoder, x, packed)
                weight = jnp.sum(jnp.asarray(packed.weight))
                right = jnp.sum(found.right * packed.weight)
                return Sums(jnp.sum(found.loss), weight, {"letters": (right, weight)})

            return jax.tree.map(jnp.sum, jax.vmap(one)(packed))

        return loss

    def vision_loss(self, heads: nnx.GraphDef, graph: nnx.GraphDef) -> LossOf:
        """Of the vision stage; eight single frames make one video."""

        def loss(parameters: Parameters, scenes: Tracks, key: Array) -> Sums:
            model, reader = nnx.merge(graph, parameters[0]), nnx.merge(heads, parameters[1])
            frames = self.frames(scenes, key)
            video = frames.reshape(-1, self.recipe.frames, *frames.shape[2:])
            tokens = jax.vmap(model.encode_video)(video)
            cells = self.recipe.grid
            tokens = tokens.reshape(len(frames), -1, cells * cells, tokens.shape[-1])
            targets = jax.vmap(lambda scene: dense_targets(scene, cells))(scenes)
            return jax.tree.map(jnp.sum, jax.vmap(reader.sums)(tokens, targets))

        return loss

    def token_loss(self, graph: nnx.GraphDef) -> LossOf:
        """Of the image and the video stage; a single frame stands in every place."""
        where = jnp.asarray(self.texts.video_position)
        letters = jnp.asarray([self.texts.tokenizer.token_to_id(letter) for letter in "ABCD"])

        def loss(parameters: Parameters, examples: Examples, key: Array) -> Sums:
            model = nnx.merge(graph, parameters)
            frames = self.frames(examples.scenes, key)

            def one(pixels: Array, example: Examples) -> Sums:
                features = model.vision(pixels)
                features = jnp.broadcast_to(features, (self.recipe.frames, *features.shape[1:]))
                packed = self.with_words(example, where)
                x = model.embed(packed.ids, where, model.projector(features))
                found = self._losses(model.decoder, x, packed)
                weight = jnp.asarray(packed.weight)
                video = jnp.zeros(len(weight), bool).at[where].set(True)
                letter = jnp.isin(packed.target, letters) & (weight > 0) & ~video
                kinds = {
                    "letters": letter,
                    "open": (weight == 1) & ~letter & ~video,
                    "verdicts": (weight == self.texts.verdict) & ~video,
                    "words": video & (weight > 0),
                }
                metrics = {
                    name: (jnp.sum(found.right * of), jnp.sum(of).astype(jnp.float32))
                    for name, of in kinds.items()
                }
                return Sums(jnp.sum(found.loss), jnp.sum(weight), metrics)

            return jax.tree.map(jnp.sum, jax.vmap(one)(frames, examples))

        return loss

    def _losses(self, decoder: Decoder, x: Array, packed: Packed) -> TokenLoss:
        recipe = self.recipe
        return token_loss(decoder, x, packed, segments=recipe.segments, chunk=recipe.chunk)

    def with_words(self, example: Examples, where: Array) -> Packed:
        """The packed sequence, with a word to learn at every video token that mostly shows it."""
        packed, cells = example.packed, self.recipe.grid
        share = shares(example.scenes, cells) * example.known[..., None]
        share = jnp.broadcast_to(share, (len(share), self.recipe.frames, cells * cells)).reshape(
            len(share), -1
        )
        target = jnp.asarray(example.word)[jnp.argmax(share, axis=0)]
        weight = self.recipe.word_weight * (jnp.max(share, axis=0) > 0.3)
        return packed._replace(
            ids=jnp.asarray(packed.ids),
            target=jnp.asarray(packed.target).at[where].set(target),
            weight=jnp.asarray(packed.weight).at[where].set(weight),
        )
