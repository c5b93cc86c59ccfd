"""What each stage of the training minimises."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flowjax.data.shapes.scene import Tracks
from flowjax.masks import EdgeMask
from flowjax.models.decoder import Keep
from flowjax.models.embedded import Embedded
from flowjax.train.loss import packed_prompt, token_loss
from flowjax.train.packing import Hidden, Packed, packed_mask
from flowjax.train.parameters import Parameters
from flowjax.train.step import LossOf, Sums
from flowjax_experiments.shapes.batches import Examples, Wanted, pixel_values
from flowjax_experiments.shapes.controls import HIDDEN
from flowjax_experiments.shapes.heads import DenseHeads, Metrics
from flowjax_experiments.shapes.model import MEAN, STD
from flowjax_experiments.shapes.recipe import Recipe
from flowjax_experiments.shapes.targets import dense_targets, shares
from flowjax_experiments.shapes.texts import Texts


class Shown(NamedTuple):
    """A batch as the decoder's stages read it: `video` [batch, tokens, width] is its embeddings."""

    examples: Examples
    wanted: Wanted
    video: Float[Array, "*batch tokens width"]


@dataclass(frozen=True)
class Training:
    """What the stages share.

    graph: of a whole model.
    remat: compute layers anew in backward passes, which saves memory.
    """

    recipe: Recipe
    texts: Texts
    graph: nnx.GraphDef
    remat: bool = True

    def text_loss(self) -> LossOf:
        """Of the text stage; of parameters of a whole model."""

        def loss(parameters: Parameters, packed: Packed, key: Array) -> Sums:
            del key
            decoder = nnx.merge(self.graph, parameters).decoder

            def one(packed: Packed) -> Sums:
                x, mask = decoder.embedding(jnp.asarray(packed.ids)), self._mask(packed)
                prompt = packed_prompt(x, packed)
                found = token_loss(
                    decoder, prompt, packed, mask, chunk=self.recipe.chunk, remat=self.remat
                )
                weight = jnp.sum(jnp.asarray(packed.weight))
                right = jnp.sum(found.right * packed.weight)
                return Sums(jnp.sum(found.loss), weight, {"letters": (right, weight)})

            return jax.tree.map(jnp.sum, jax.vmap(one)(packed))

        return loss

    def vision_loss(self, heads: nnx.GraphDef, decoder: Parameters) -> LossOf:
        """Of the vision stage, by `model` and `heads`; eight single frames make one video.

        decoder: parameters that a whole model has besides.
        """
        recipe = self.recipe

        def loss(parameters: Parameters, scenes: Tracks, key: Array) -> Sums:
            model = nnx.merge(self.graph, {**parameters["model"], "decoder": decoder})
            reader: DenseHeads = nnx.merge(heads, parameters["heads"])
            frames = pixel_values(scenes, key, recipe.image_size, MEAN, STD)
            video = frames.reshape(-1, recipe.frames, *frames.shape[2:])
            tokens = jax.vmap(model.encode_video)(video)
            cells = recipe.grid
            tokens = tokens.reshape(len(frames), -1, cells * cells, tokens.shape[-1])
            targets = jax.vmap(lambda scene: dense_targets(scene, cells))(scenes)
            return jax.tree.map(jnp.sum, jax.vmap(reader.sums)(tokens, targets))

        return loss

    def tower(self, parameters: Parameters) -> Callable[[Tracks, Array], Array]:
        """Video embeddings of scenes, [batch, tokens, width], from parameters that stay.

        A single frame stands in every place.
        """

        @jax.jit
        def encoded(parameters: Parameters, scenes: Tracks, key: Array) -> Array:
            model = nnx.merge(self.graph, parameters)

            def one(pixels: Array) -> Array:
                features = model.vision(pixels)
                shape = (self.recipe.frames, *features.shape[1:])
                return model.projector(jnp.broadcast_to(features, shape))

            frames = pixel_values(scenes, key, self.recipe.image_size, MEAN, STD)
            return jax.vmap(one)(frames)

        return lambda scenes, key: encoded(parameters, scenes, key)

    def decoder_loss(self, frozen: Parameters, heads: nnx.GraphDef | None = None) -> LossOf:
        """Of the image, the motion and the video stage, by `decoder` and, if given, `heads`.

        frozen: parameters of a whole model, of which the decoder's are replaced.
        """
        where, prefix = jnp.asarray(self.texts.video_position), jnp.asarray(self.texts.prefix)

        def loss(parameters: Parameters, shown: Shown, key: Array) -> Sums:
            del key
            model = nnx.merge(self.graph, {**frozen, "decoder": parameters["decoder"]})
            reader = None if heads is None else nnx.merge(heads, parameters["heads"])

            def one(shown: Shown) -> Sums:
                examples, wanted, packed = shown.examples, shown.wanted, shown.examples.packed
                total, hidden, metrics = jnp.zeros(()), None, {}
                if packed is None:
                    x = model.embed(prefix, where, shown.video)
                    hidden = model.decoder(
                        Embedded.of(x), keep=Keep(hidden=True), chunk=self.recipe.chunk,
                        remat=self.remat,
                    ).hidden  # fmt: skip
                else:
                    packed = self.with_words(examples, packed, where)
                    x = model.embed(jnp.asarray(packed.ids), where, shown.video)
                    found = token_loss(
                        model.decoder,
                        packed_prompt(x, packed),
                        packed,
                        self._mask(packed, jnp.asarray(wanted.hide)),
                        chunk=self.recipe.chunk,
                        hidden=reader is not None,
                        remat=self.remat,
                    )
                    total, hidden = jnp.sum(found.loss), found.hidden
                    metrics = self._of_tokens(packed, found.right)
                weight = jnp.asarray(wanted.weight)
                if reader is not None:
                    assert hidden is not None
                    tokens = hidden[wanted.layer][where]
                    told, more = reader.loss(
                        tokens, examples.scenes, examples.motions, self.recipe.grid
                    )
                    total = total + wanted.motion * weight * told
                    metrics |= more
                return Sums(total, weight, metrics)

            return jax.tree.map(jnp.sum, jax.vmap(one)(shown))

        return loss

    def _mask(self, packed: Packed, hide: Array | None = None) -> EdgeMask:
        segment, recipe = jnp.asarray(packed.segment), self.recipe
        position = self.texts.video_position
        hidden = None if hide is None else Hidden(position, min(HIDDEN, recipe.layers), hide)
        return packed_mask(segment, recipe.segments, recipe.layers, hidden)

    def _of_tokens(self, packed: Packed, right: Array) -> Metrics:
        """How often tokens of each kind are right."""
        where, weight = jnp.asarray(self.texts.video_position), jnp.asarray(packed.weight)
        letters = jnp.asarray([self.texts.tokenizer.token_to_id(letter) for letter in "ABCD"])
        video = jnp.zeros(len(weight), bool).at[where].set(True)
        letter = jnp.isin(packed.target, letters) & (weight > 0) & ~video
        kinds = {
            "letters": letter,
            "asked": letter & (jnp.asarray(packed.segment) == 1),
            "open": (weight == 1) & ~letter & ~video,
            "verdicts": (weight == self.texts.verdict) & ~video,
            "words": video & (weight > 0),
        }
        return {
            name: (jnp.sum(right * of), jnp.sum(of).astype(jnp.float32))
            for name, of in kinds.items()
        }

    def with_words(self, examples: Examples, packed: Packed, where: Array) -> Packed:
        """The packed sequence, with a word to learn at every video token that mostly shows it."""
        cells = self.recipe.grid
        share = shares(examples.scenes, cells) * examples.known[..., None]
        share = jnp.broadcast_to(share, (len(share), self.recipe.frames, cells * cells)).reshape(
            len(share), -1
        )
        target = jnp.asarray(examples.word)[jnp.argmax(share, axis=0)]
        weight = self.recipe.word_weight * (jnp.max(share, axis=0) > 0.3)
        return packed._replace(
            ids=jnp.asarray(packed.ids),
            target=jnp.asarray(packed.target).at[where].set(target),
            weight=jnp.asarray(packed.weight).at[where].set(weight),
        )
