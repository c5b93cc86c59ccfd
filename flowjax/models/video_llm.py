"""A VideoLLM: vision encoder, projector and decoder, run on one sample at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from flowjax.models.decoder import Decoder, DecoderConfig


class PartConfig(Protocol):
    """Configuration of a vision encoder or projector, which knows the module it is for."""

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> Callable[[Array], Array]:
        """Make the module with random parameters."""
        ...


@dataclass(frozen=True)
class VideoLLMConfig:
    """Everything about a model that its parameters do not say.

    family: name of the family that reads its configuration (see `flowjax.models.registry`).
    frames: frames of one video.
    tokens_per_frame: video positions of each frame.
    placeholder: token id that stands for the video in a prompt.
    """

    family: str
    decoder: DecoderConfig
    vision: PartConfig
    projector: PartConfig
    frames: int
    tokens_per_frame: int
    placeholder: int


class VideoLLM(nnx.Module):
    """The parameters and the parts of a forward pass; how they are combined is the caller's."""

    def __init__(self, config: VideoLLMConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.vision = config.vision.build(dtype, rngs)
        self.projector = config.projector.build(dtype, rngs)
        self.decoder = Decoder(config.decoder, dtype, rngs)

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the embeddings, in which the decoder's residual stream is kept."""
        return self.decoder.embedding.embedding[...].dtype

    def encode_video(
        self, pixel_values: Float[Array, "frames channels height width"]
    ) -> Float[Array, "video width"]:
        """Video embeddings in the order of the video's positions in the prompt."""
        return self.projector(self.vision(pixel_values.astype(self.dtype)))

    def embed(
        self,
        ids: Int[Array, " n"],
        video_position: Int[Array, " video"],
        video: Float[Array, "video width"],
    ) -> Float[Array, "n width"]:
        """Token embeddings with the video's put at its positions."""
        text = self.decoder.embedding(jnp.where(ids == self.config.placeholder, 0, ids))
        return text.at[video_position].set(video.astype(text.dtype))


def abstract_model(config: VideoLLMConfig, dtype: jnp.dtype) -> VideoLLM:
    """The module with shapes in place of parameters; allocates nothing."""
    return nnx.eval_shape(lambda: VideoLLM(config, dtype=dtype, rngs=nnx.Rngs(0)))


def parameter_shapes(config: VideoLLMConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its path, such as `decoder/layers/query/kernel`."""
    state = nnx.to_pure_dict(nnx.state(abstract_model(config, jnp.dtype(jnp.float32))))
    leaves, _ = jax.tree.flatten_with_path(state)
    return {"/".join(str(key.key) for key in path): leaf.shape for path, leaf in leaves}
