"""From a question about a video to what an engine reads."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowjax.data.frame_order import AS_IS, frame_order
from flowjax.data.prompt import VideoShape
from flowjax.data.sample import Sample
from flowjax.data.video import read_frames
from flowjax.errors import FlowjaxError
from flowjax.layout import EncodedPrompt, encode_prompt
from flowjax.models.checkpoint import LoadedModel
from flowjax.models.video_llm import VideoLLM
from flowjax.sweeps.answers import Embedded


@dataclass(frozen=True)
class Prepared:
    """A sample decoded, preprocessed and tokenized.

    pixel_values: float32 [frames, ...], with the axes of the family's preprocessor.
    true_id: token id of the true option's letter.
    repeated_frames: whether the video has fewer frames than the model reads.
    """

    sample: Sample
    prompt: EncodedPrompt
    pixel_values: Float[np.ndarray, "t ..."]
    true_id: int
    repeated_frames: bool


def prepare(loaded: LoadedModel, sample: Sample, *, order: str = AS_IS) -> Prepared:
    """Everything about a sample that needs no accelerator.

    Args:
        loaded: the model.
        sample: a question about a video.
        order: of the video's frames; see `frame_order`.

    Raises:
        FlowjaxError: an unreadable video, or a question that the model cannot be asked.
    """
    answer = sample.question.answer
    if answer is None:
        raise FlowjaxError(f"sample {sample.sample_id!r}: the true option is not known")
    true_id = loaded.tokenizer.token_to_id(answer)
    if true_id is None:
        raise FlowjaxError(f"the tokenizer has no token for the letter {answer!r}")
    prompt, pixel_values, repeated = ask(loaded, sample, order=order)
    return Prepared(sample, prompt, pixel_values, true_id, repeated)


def ask(
    loaded: LoadedModel, sample: Sample, *, order: str = AS_IS
) -> tuple[EncodedPrompt, Float[np.ndarray, "t ..."], bool]:
    """Decode, preprocess and tokenize a sample whose answer need not be known; see `prepare`.

    Returns:
        The prompt, the pixel values, and whether frames are repeated.
    """
    clip = read_frames(
        sample.video, loaded.config.frames, start=sample.start, end=sample.end, by=sample.by
    )
    chosen = frame_order(order, len(clip.frames), sample.sample_id)
    pixel_values = loaded.preprocess(clip.frames[chosen])
    shape = VideoShape(pixel_values.shape, tuple(map(float, clip.timestamps)))
    text = loaded.family.prompt(loaded.config, sample.question, shape)
    return encode_prompt(text, loaded.tokenizer), pixel_values, clip.repeated


@jax.jit
def _embed(
    model: VideoLLM, ids: Array, position: Array, pixel_values: Array
) -> tuple[Array, Array | None]:
    video = model.encode_video(pixel_values)
    return model.embed(ids, position, video), model.deepstack(ids, position, video)


def embed(model: VideoLLM, prepared: Prepared) -> Embedded:
    """The decoder's input: text embeddings with the video's in their places."""
    return embed_prompt(model, prepared.prompt, prepared.pixel_values)


def embed_prompt(
    model: VideoLLM, prompt: EncodedPrompt, pixel_values: Float[np.ndarray, "t ..."]
) -> Embedded:
    """See `embed`."""
    x, deepstack = _embed(model, prompt.ids, prompt.video_position, pixel_values)
    return Embedded(x, jnp.asarray(prompt.rope_position), deepstack)
