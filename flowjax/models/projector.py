"""From vision features to video embeddings in the decoder's width."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flowjax.models.activations import Activation, activate
from flowjax.models.places import block_places, square_places
from flowjax.precision import PRECISION


@dataclass(frozen=True)
class MlpProjectorConfig:
    """Sizes of `MlpProjector`."""

    inputs: int
    outputs: int
    activation: Activation

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """See `ProjectorConfig.places`."""
        return block_places(positions, pixels)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "MlpProjector":
        """Make the projector with random parameters."""
        return MlpProjector(self, dtype, rngs)


@dataclass(frozen=True)
class ClassTokenProjectorConfig(MlpProjectorConfig):
    """Sizes of an `MlpProjector` of square frames, the first feature of each the class token's."""

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """See `ProjectorConfig.places`; class tokens are in none."""
        patches = positions.reshape(frames, -1)[:, 1:]
        return square_places(patches.reshape(-1), frames)


class MlpProjector(nnx.Module):
    """Two linear layers on every feature; the order of the features is kept."""

    def __init__(self, config: MlpProjectorConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(
                inputs, outputs, dtype=dtype, param_dtype=dtype, precision=PRECISION, rngs=rngs
            )

        self.config = config
        self.linear_1 = linear(config.inputs, config.outputs)
        self.linear_2 = linear(config.outputs, config.outputs)

    def __call__(
        self, features: Float[Array, "*grid inputs"]
    ) -> Float[Array, "video_tokens outputs"]:
        """Video embeddings, one for every feature."""
        projected = self.linear_2(activate(self.config.activation, self.linear_1(features)))
        return projected.reshape(-1, self.config.outputs)


@dataclass(frozen=True)
class PoolingProjectorConfig:
    """Sizes of `PoolingProjector`: `pooling` and `grid` are (frames, rows, columns)."""

    inputs: int
    outputs: int
    grid: tuple[int, int, int]
    pooling: tuple[int, int, int]
    activation: Activation

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """See `ProjectorConfig.places`."""
        return positions.reshape(frames, *self.pooling[1:])

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "PoolingProjector":
        """Make the projector with random parameters."""
        return PoolingProjector(self, dtype, rngs)


class PoolingProjector(nnx.Module):
    """Two linear layers on every patch, then adaptive average pooling of every frame.

    PLLaVA (Xu et al. 2024, arXiv 2404.16994), whose models pool to as many frames as they read.
    """

    def __init__(self, config: PoolingProjectorConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(
                inputs, outputs, dtype=dtype, param_dtype=dtype, precision=PRECISION, rngs=rngs
            )

        self.config = config
        self.linear_1 = linear(config.inputs, config.outputs)
        self.linear_2 = linear(config.outputs, config.outputs)

    def __call__(
        self, features: Float[Array, "frames patches inputs"]
    ) -> Float[Array, "video_tokens outputs"]:
        """Video embeddings in the order frame, row, column."""
        projected = self.project(features)
        grid = projected.reshape(len(features), *self.config.grid[1:], -1)
        for axis, bins in enumerate(self.config.pooling[1:], 1):
            pool = jnp.asarray(pooling_matrix(grid.shape[axis], bins), grid.dtype)
            pooled = jnp.tensordot(pool, grid, axes=(1, axis), precision=PRECISION)
            grid = jnp.moveaxis(pooled, 0, axis)
        return grid.reshape(-1, self.config.outputs)

    def project(
        self, features: Float[Array, "frames patches inputs"]
    ) -> Float[Array, "frames patches outputs"]:
        """The two linear layers, before pooling."""
        return self.linear_2(activate(self.config.activation, self.linear_1(features)))


def pooling_matrix(length: int, bins: int) -> list[list[float]]:
    """Adaptive average pooling of one axis as a [bins, length] matrix.

    Bin i averages `[floor(i * length / bins), ceil((i + 1) * length / bins))`; bins may overlap.
    """
    matrix = []
    for index in range(bins):
        start, stop = index * length // bins, -(-(index + 1) * length // bins)
        matrix.append([1 / (stop - start) if start <= x < stop else 0.0 for x in range(length)])
    return matrix
