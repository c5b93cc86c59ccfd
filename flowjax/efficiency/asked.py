"""A question about a video as methods read it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowjax.asked.asked import Asked
from flowjax.efficiency.method import Prompt
from flowjax.efficiency.seen import Readable, Seen, see
from flowjax.errors import FlowjaxError
from flowjax.models.video_llm import VideoLLM


def prompt_of(asked: Asked) -> Prompt:
    """The prompt of a question; its vision tower is read when a method asks for it."""
    config, model = asked.model.config, asked.model.model
    video = asked.layout.positions("video").astype(np.int32)
    frames = len(np.unique(asked.layout.cell[video]))
    places = config.projector.places(video, frames, asked.pixel_values.shape)

    def look() -> Seen:
        if not reads_tower(model) or len(places) != len(asked.pixel_values):
            raise FlowjaxError(
                f"family {config.family}: the attention of its vision tower is not read, which is "
                "done of towers whose square frames do not see each other (CLIP, SigLIP)"
            )
        return _see(model, jnp.asarray(asked.pixel_values), (places.shape[1], places.shape[2]))

    grid = places.reshape(len(places), -1).astype(np.int32)
    name = asked.sample.sample_id
    letters = np.array(list(asked.letter_ids.values()), np.int32)
    return Prompt(name, asked.decoder, asked.embedded, asked.layout, grid, letters, look)


def reads_tower(model: VideoLLM) -> bool:
    """Whether the model's vision tower is of a kind whose attention can be read."""
    return isinstance(model.vision, Readable)


@functools.partial(jax.jit, static_argnames="places")
def _see(model: VideoLLM, pixel_values: Array, places: tuple[int, int]) -> Seen:
    assert isinstance(model.vision, Readable)
    return see(model.vision, pixel_values.astype(model.dtype), places)
