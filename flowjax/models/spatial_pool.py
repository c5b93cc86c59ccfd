"""Video embeddings with every frame's grid of features made smaller: LLaVA's later projectors."""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flowjax.models.activations import Activation
from flowjax.models.attention import PRECISION
from flowjax.models.places import square_places
from flowjax.models.projector import MlpProjector, MlpProjectorConfig

PoolMode = Literal["average", "max", "conv"]


@dataclass(frozen=True)
class StridedPoolConfig:
    """Sizes of `StridedPool`.

    grid: rows, and columns, of a frame's features.
    stride: rows, and columns, of the blocks that become one video token.
    """

    inputs: int
    outputs: int
    grid: int
    stride: int
    mode: PoolMode
    activation: Activation

    @property
    def side(self) -> int:
        """Rows, and columns, of video tokens of a frame."""
        return self.grid // self.stride

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """See `ProjectorConfig.places`."""
        return square_places(positions, frames)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "StridedPool":
        """Make the projector with random parameters."""
        return StridedPool(self, dtype, rngs)


class StridedPool(nnx.Module):
    """Blocks of features that do not overlap to one each, then two linear layers.

    That of LLaVA-NeXT-Video. Rows and columns that fill no block are dropped.
    """

    def __init__(self, config: StridedPoolConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.pool = (
            nnx.Linear(
                config.inputs * config.stride**2,
                config.inputs,
                dtype=dtype,
                param_dtype=dtype,
                precision=PRECISION,
                rngs=rngs,
            )
            if config.mode == "conv"
            else None
        )
        mlp = MlpProjectorConfig(config.inputs, config.outputs, config.activation)
        self.mlp = MlpProjector(mlp, dtype, rngs)

    def __call__(
        self, features: Float[Array, "frames patches inputs"]
    ) -> Float[Array, "video_tokens outputs"]:
        """Video embeddings in the order frame, row, column."""
        grid, side, stride = self.config.grid, self.config.side, self.config.stride
        frames = features.reshape(len(features), grid, grid, -1)
        frames = frames[:, : side * stride, : side * stride]
        blocks = frames.reshape(len(features), side, stride, side, stride, -1)
        if self.pool is not None:
            # A convolution's kernel is flattened as (channel, row, column).
            flat = blocks.transpose(0, 1, 3, 5, 2, 4).reshape(-1, self.pool.in_features)
            return self.mlp(self.pool(flat))
        reduce = jnp.mean if self.config.mode == "average" else jnp.max
        return self.mlp(reduce(blocks, axis=(2, 4)))


@dataclass(frozen=True)
class HalvingPoolConfig:
    """Sizes of `HalvingPool`; `grid` is the rows, and columns, of a frame's features."""

    inputs: int
    outputs: int
    grid: int
    activation: Activation

    @property
    def side(self) -> int:
        """Rows, and columns, of video tokens of a frame."""
        return math.ceil(self.grid / 2)

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """See `ProjectorConfig.places`; the token that closes the video is in none."""
        return square_places(positions, frames)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "HalvingPool":
        """Make the projector with random parameters."""
        return HalvingPool(self, dtype, rngs)


class HalvingPool(nnx.Module):
    """Two linear layers, a bilinear resize to half the rows and columns, and a closing token.

    That of LLaVA-OneVision (Li et al. 2024, arXiv 2408.03326). The token, a parameter, follows the
    last frame.
    """

    def __init__(self, config: HalvingPoolConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        mlp = MlpProjectorConfig(config.inputs, config.outputs, config.activation)
        self.mlp = MlpProjector(mlp, dtype, rngs)
        self.newline = nnx.Param(
            jax.random.normal(rngs.params(), (config.outputs,), dtype) * config.outputs**-0.5
        )

    def __call__(
        self, features: Float[Array, "frames patches inputs"]
    ) -> Float[Array, "video_tokens outputs"]:
        """Video embeddings in the order frame, row, column, and the closing token's."""
        grid, side = self.config.grid, self.config.side
        projected = self.mlp(features).reshape(len(features), grid, grid, -1)
        matrix = jnp.asarray(bilinear_matrix(grid, side), projected.dtype)
        rows = jnp.einsum("rh,fhwc->frwc", matrix, projected, precision=PRECISION)
        resized = jnp.einsum("sw,frwc->frsc", matrix, rows, precision=PRECISION)
        tokens = resized.reshape(-1, self.config.outputs)
        return jnp.concatenate([tokens, self.newline[...][None]])


def bilinear_matrix(length: int, bins: int) -> list[list[float]]:
    """Bilinear interpolation of one axis from `length` points to `bins`, as [bins, length].

    Points lie in the middle of cells of equal size (PyTorch's `align_corners=False`); there is no
    smoothing before the resize.
    """
    matrix = []
    for index in range(bins):
        place = max(0.0, (index + 0.5) * length / bins - 0.5)
        first = int(place)
        second = min(first + 1, length - 1)
        row = [0.0] * length
        row[first] += 1 - (place - first)
        row[second] += place - first
        matrix.append(row)
    return matrix
