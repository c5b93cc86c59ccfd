"""Projectors that make one video token of each block of patches (Qwen2-VL, arXiv 2409.12191)."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flowjax.models.places import block_places
from flowjax.models.stack import layer_at, stacked
from flowjax.models.video_llm import DeepstackVideo
from flowjax.precision import PRECISION

NORM_EPS = 1e-6
"""Of Qwen's models."""


@dataclass(frozen=True)
class MergerConfig:
    """Sizes of `PatchMerger`.

    inputs: width of a patch's features.
    block: patches of one block.
    norm: of every patch's features, before they are joined.
    norm_eps: of that norm.
    """

    inputs: int
    outputs: int
    block: int
    norm: Literal["rms", "layer"]
    norm_eps: float = NORM_EPS

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """See `ProjectorConfig.places`."""
        return block_places(positions, pixels)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "PatchMerger":
        """Make the projector with random parameters."""
        return PatchMerger(self, self.inputs, dtype, rngs)


class PatchMerger(nnx.Module):
    """Norm, the features of a block's patches in a row, and two linear layers with GELU (erf)."""

    def __init__(
        self, config: MergerConfig, norm_width: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        """`norm_width`: what is normed: one patch, or a whole block."""

        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(
                inputs, outputs, dtype=dtype, param_dtype=dtype, precision=PRECISION, rngs=rngs
            )

        if config.norm == "rms":
            self.norm = nnx.RMSNorm(
                norm_width, epsilon=config.norm_eps, dtype=dtype, param_dtype=dtype, rngs=rngs
            )
        else:
            self.norm = nnx.LayerNorm(
                norm_width,
                epsilon=config.norm_eps,
                dtype=dtype,
                param_dtype=dtype,
                use_fast_variance=False,
                rngs=rngs,
            )
        self.norm_width = norm_width
        self.block_width = config.block * config.inputs
        self.linear_1 = linear(self.block_width, self.block_width)
        self.linear_2 = linear(self.block_width, config.outputs)

    def __call__(
        self, features: Float[Array, "frames patches inputs"]
    ) -> Float[Array, "video outputs"]:
        """Video embeddings in the order of the blocks."""
        normed = self.norm(features.reshape(-1, self.norm_width)).reshape(-1, self.block_width)
        return self.linear_2(jax.nn.gelu(self.linear_1(normed), approximate=False))


@dataclass(frozen=True)
class DeepstackMergerConfig:
    """A merger of the last layer's features, and `earlier` more of earlier layers' features."""

    merger: MergerConfig
    earlier: int

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """See `ProjectorConfig.places`."""
        return block_places(positions, pixels)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "DeepstackMerger":
        """Make the projector with random parameters."""
        return DeepstackMerger(self, dtype, rngs)


class DeepstackMerger(nnx.Module):
    """Mergers of several layers' features; those of earlier layers norm whole blocks (Qwen3-VL)."""

    def __init__(self, config: DeepstackMergerConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        merger = config.merger
        self.merger = PatchMerger(merger, merger.inputs, dtype, rngs)
        self.deepstack = stacked(
            lambda rngs: PatchMerger(merger, merger.inputs * merger.block, dtype, rngs),
            config.earlier,
            rngs,
        )

    def __call__(self, features: Float[Array, "features frames patches inputs"]) -> DeepstackVideo:
        """Video embeddings of the last layer's features, which come first, and of the others."""
        earlier = [
            layer_at(self.deepstack, index)(feature) for index, feature in enumerate(features[1:])
        ]
        return DeepstackVideo(self.merger(features[0]), jnp.stack(earlier))
