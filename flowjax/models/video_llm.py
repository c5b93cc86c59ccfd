"""A VideoLLM: vision encoder, projector and decoder, run on one sample at a time."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flowjax.models.decoder import Decoder, DecoderConfig


class DeepstackVideo(NamedTuple):
    """What a projector gives of a video that also reaches decoder layers after the first.

    tokens: [video, width], the video embeddings.
    deepstack: [k, video, width], added at the video's positions after each of the first k layers
        (see `flowjax.models.decoder.deepened`).
    """

    tokens: Float[Array, "video width"]
    deepstack: Float[Array, "k video width"]


@runtime_checkable
class PartConfig(Protocol):
    """Configuration of a vision encoder, which knows the module it is for."""

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> Callable[[Array], Array]:
        """Make the module with random parameters."""
        ...


@runtime_checkable
class ProjectorConfig(Protocol):
    """Configuration of a projector, which knows the module it is for."""

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> Callable[[Array], Array | DeepstackVideo]:
        """Make the module with random parameters."""
        ...

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """Of the video's `positions` in a prompt, the one of every place of every frame's picture.

        frames: that the prompt has token groups of.
        pixels: shape of the pixel values.
        """
        ...


@dataclass(frozen=True)
class VideoLLMConfig:
    """Everything about a model that its parameters do not say.

    family: name of the family that reads its configuration (see `flowjax.models.registry`).
    frames: frames of one video.
    tokens_per_frame: video positions of each frame; None where they depend on the video's size.
    placeholder: token id that stands for the video in a prompt.
    conversation: the name of the conversation format, for a family that has several.
    """

    family: str
    decoder: DecoderConfig
    vision: PartConfig
    projector: ProjectorConfig
    frames: int
    tokens_per_frame: int | None
    placeholder: int
    conversation: str = ""


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
        return jax.tree.leaves(self.decoder.embedding)[0].dtype

    def encode_video(
        self, pixel_values: Float[Array, "frames ..."], *, remat: bool = False
    ) -> Float[Array, "video width"] | DeepstackVideo:
        """Video embeddings in the order of the video's positions in the prompt.

        remat: compute the vision encoder anew in a backward pass through it.
        """
        vision = jax.checkpoint(self.vision) if remat else self.vision
        return self.projector(vision(pixel_values.astype(self.dtype)))

    def embed(
        self,
        ids: Int[Array, " n"],
        video_position: Int[Array, " video"],
        video: Float[Array, "video width"] | DeepstackVideo,
    ) -> Float[Array, "n width"]:
        """Token embeddings with the video's put at its positions."""
        video = video.tokens if isinstance(video, DeepstackVideo) else video
        text = self.decoder.embedding(jnp.where(ids == self.config.placeholder, 0, ids))
        return text.at[video_position].set(video.astype(text.dtype))

    def deepstack(
        self,
        ids: Int[Array, " n"],
        video_position: Int[Array, " video"],
        video: Float[Array, "video width"] | DeepstackVideo,
    ) -> Float[Array, "k n width"] | None:
        """What the decoder adds after its first layers: zeros but at the video's positions."""
        if not isinstance(video, DeepstackVideo):
            return None
        layers, _, width = video.deepstack.shape
        nothing = jnp.zeros((layers, len(ids), width), self.dtype)
        return nothing.at[:, video_position].set(video.deepstack.astype(self.dtype))


def abstract_model(config: VideoLLMConfig, dtype: jnp.dtype) -> VideoLLM:
    """The module with shapes in place of parameters; allocates nothing.

    Each call gives a module of its own, which the caller may change.
    """
    graph, shapes = _shapes(config, jnp.dtype(dtype))
    return nnx.merge(graph, jax.tree.map(lambda shape: shape, shapes))  # new variables


@functools.cache
def _shapes(
    config: VideoLLMConfig, dtype: jnp.dtype
) -> tuple[nnx.GraphDef[VideoLLM], nnx.State[Any, Any]]:
    """Kept, for converting, loading and checking a model each ask, and each would trace it anew."""
    return nnx.split(nnx.eval_shape(lambda: VideoLLM(config, dtype=dtype, rngs=nnx.Rngs(0))))


def parameter_shapes(config: VideoLLMConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its path, such as `decoder/layers/query/kernel`."""
    state = nnx.to_pure_dict(nnx.state(abstract_model(config, jnp.dtype(jnp.float32))))
    leaves, _ = jax.tree.flatten_with_path(state)
    return {"/".join(str(key.key) for key in path): leaf.shape for path, leaf in leaves}
