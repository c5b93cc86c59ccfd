"""InternVL's and SmolVLM's projectors: a block of neighbouring patches becomes one embedding."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flowjax.models.activations import Activation, activate
from flowjax.models.places import square_places
from flowjax.precision import PRECISION

NORM_EPS = 1e-5
"""Of the projector's norm, which no configuration sets."""


@dataclass(frozen=True)
class PixelShuffleConfig:
    """Sizes of `PixelShuffleProjector`.

    inputs: width of a patch's feature.
    grid: patches along one side of a frame.
    block: patches along one side of the block that one embedding is made of.
    transposed: whether embeddings go column by column (`ps_version` v1) instead of row by row.
    """

    inputs: int
    outputs: int
    grid: int
    block: int
    transposed: bool
    activation: Activation

    @property
    def tokens_per_frame(self) -> int:
        """Embeddings of one frame."""
        return (self.grid // self.block) ** 2

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """See `ProjectorConfig.places`."""
        found = square_places(positions, frames)
        return found.transpose(0, 2, 1) if self.transposed else found

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "PixelShuffleProjector":
        """Make the projector with random parameters."""
        return PixelShuffleProjector(self, dtype, rngs)


class PixelShuffleProjector(nnx.Module):
    """Pixel shuffle, norm and two linear layers (Chen et al. 2024, arXiv 2404.16821)."""

    def __init__(self, config: PixelShuffleConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(
                inputs, outputs, dtype=dtype, param_dtype=dtype, precision=PRECISION, rngs=rngs
            )

        self.config = config
        joined = config.inputs * config.block**2
        self.norm = nnx.LayerNorm(
            joined,
            epsilon=NORM_EPS,
            dtype=dtype,
            param_dtype=dtype,
            use_fast_variance=False,
            rngs=rngs,
        )
        self.linear_1 = linear(joined, config.outputs)
        self.linear_2 = linear(config.outputs, config.outputs)

    def __call__(
        self, features: Float[Array, "frames patches inputs"]
    ) -> Float[Array, "video_tokens outputs"]:
        """Video embeddings, frame by frame."""
        joined = self.norm(self.shuffle(features))
        projected = self.linear_2(activate(self.config.activation, self.linear_1(joined)))
        return projected.reshape(-1, self.config.outputs)

    def shuffle(
        self, features: Float[Array, "frames patches inputs"]
    ) -> Float[Array, "frames blocks joined"]:
        """Features of each block side by side, in the order row, column within the block."""
        return shuffled(features, self.config.grid, self.config.block, self.config.transposed)


def shuffled(
    features: Float[Array, "frames patches inputs"], grid: int, block: int, transposed: bool
) -> Float[Array, "frames blocks joined"]:
    """Features of each block side by side, in the order row, column within the block.

    Args:
        features: of a frame's patches, row by row.
        grid: patches along a side of a frame.
        block: patches along a side of a block.
        transposed: whether blocks come column by column.
    """
    blocks = grid // block
    parts = features.reshape(len(features), blocks, block, blocks, block, -1)
    order = (0, 3, 1, 2, 4, 5) if transposed else (0, 1, 3, 2, 4, 5)
    return parts.transpose(order).reshape(len(features), blocks * blocks, -1)


@dataclass(frozen=True)
class ShuffleLinearConfig:
    """Sizes of `ShuffleLinear`, as in `PixelShuffleConfig`."""

    inputs: int
    outputs: int
    grid: int
    block: int

    @property
    def tokens_per_frame(self) -> int:
        """Embeddings of one frame."""
        return (self.grid // self.block) ** 2

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """See `ProjectorConfig.places`."""
        return square_places(positions, frames)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "ShuffleLinear":
        """Make the projector with random parameters."""
        return ShuffleLinear(self, dtype, rngs)


class ShuffleLinear(nnx.Module):
    """Pixel shuffle and one linear layer without biases (Marafioti et al., arXiv 2504.05299)."""

    def __init__(self, config: ShuffleLinearConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.linear = nnx.Linear(
            config.inputs * config.block**2,
            config.outputs,
            use_bias=False,
            dtype=dtype,
            param_dtype=dtype,
            precision=PRECISION,
            rngs=rngs,
        )

    def __call__(
        self, features: Float[Array, "frames patches inputs"]
    ) -> Float[Array, "video_tokens outputs"]:
        """Video embeddings, frame by frame and row by row."""
        joined = shuffled(features, self.config.grid, self.config.block, transposed=False)
        return self.linear(joined).reshape(-1, self.config.outputs)
