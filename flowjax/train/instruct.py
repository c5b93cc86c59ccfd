"""What instruction tuning minimises: the loss of the answers to questions about videos."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from flowjax.models.attention import CHUNK
from flowjax.models.video_llm import VideoLLM
from flowjax.train.gathered import Gather
from flowjax.train.loss import packed_prompt, token_loss
from flowjax.train.packing import Numbers, Packed, packed_mask
from flowjax.train.parameters import Parameters
from flowjax.train.step import LossOf, Sums

LOGIT_ROWS = 512
"""Rows of logits that there are at a time."""


class Instructed(NamedTuple):
    """Videos, and questions about each with their answers, on a leading axis of examples.

    packed: the questions about a video in one sequence, as `flowjax.train.packing` draws them.
    video_position: int32, where the video's embeddings go.
    pixel_values: float32 [*batch, frames, ...], with the axes of the family's preprocessor.
    """

    packed: Packed
    video_position: Int[Numbers, "*batch video"]
    pixel_values: Float[Numbers, "..."]


def instruction_loss(
    graph: nnx.GraphDef[VideoLLM],
    questions: int,
    *,
    remat: bool,
    chunk: int = CHUNK,
    gather: Gather = lambda parameters: parameters,
) -> LossOf[Instructed]:
    """The loss of some examples: cross-entropy of the answers' tokens, summed.

    Its metric `right` is how often such a token is the likeliest.

    Args:
        graph: of the model, from `flax.nnx.split`.
        questions: the most that one video has.
        remat: compute layers anew in the backward pass.
        chunk: rows of attention computed at a time.
        gather: what is done with parameters before they are used.
    """

    def loss(parameters: Parameters, batch: Instructed, key: Array) -> Sums:
        del key
        model = nnx.merge(graph, gather(parameters))
        layers = model.config.decoder.layers

        def one(example: Instructed) -> Sums:
            packed, where = example.packed, jnp.asarray(example.video_position)
            ids = jnp.asarray(packed.ids)
            video = model.encode_video(jnp.asarray(example.pixel_values), remat=remat)
            x = model.embed(ids, where, video)
            found = token_loss(
                model.decoder,
                packed_prompt(x, packed, model.deepstack(ids, where, video)),
                packed,
                packed_mask(jnp.asarray(packed.segment), questions, layers),
                chunk=chunk,
                remat=remat,
                rows=LOGIT_ROWS,
            )
            weight = jnp.sum(jnp.asarray(packed.weight))
            right = jnp.sum(found.right * packed.weight)
            return Sums(jnp.sum(found.loss), weight, {"right": (right, weight)})

        return jax.tree.map(jnp.sum, jax.vmap(one)(batch))

    return loss
