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
from flowjax.models.places import square_places
from flowjax.models.projector import MlpProjector, MlpProjectorConfig
from flowjax.precision import PRECISION

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


GridPoolMode = Literal["average", "max", "bilinear"]
Newline = Literal["grid", "frame", "one_token", "no_token"]
"""Where the newline token stands: after every row of every frame, after every frame, after the
video, or nowhere; the names are those of the released configurations."""


@dataclass(frozen=True)
class NewlinePoolConfig:
    """Sizes of `NewlinePool`.

    grid: rows, and columns, of a frame's features.
    stride: how many times fewer rows, and columns, the video tokens have.
    """

    inputs: int
    outputs: int
    grid: int
    stride: int
    mode: GridPoolMode
    newline: Newline
    activation: Activation

    @property
    def side(self) -> int:
        """Rows, and columns, of video tokens of a frame; only a resize keeps parts of blocks."""
        exact = self.grid / self.stride
        return math.ceil(exact) if self.mode == "bilinear" else math.floor(exact)

    @property
    def tokens_per_frame(self) -> int:
        """Video tokens of every frame, without the one after the video."""
        return self.side**2 + {"grid": self.side, "frame": 1}.get(self.newline, 0)

    def frames(self, frames: int) -> list[tuple[str, int]]:
        """The frames' cells and their numbers of tokens; the last has the one after the video."""
        counts = [self.tokens_per_frame] * frames
        counts[-1] += self.newline == "one_token"
        return [(f"frame_{index}", count) for index, count in enumerate(counts)]

    def places(
        self, positions: Int[np.ndarray, " n"], frames: int, pixels: tuple[int, ...]
    ) -> Int[np.ndarray, "frames rows columns"]:
        """See `ProjectorConfig.places`; newline tokens are in none."""
        tokens = positions[: frames * self.tokens_per_frame].reshape(frames, -1)
        if self.newline == "grid":
            return tokens.reshape(frames, self.side, self.side + 1)[:, :, : self.side]
        return tokens[:, : self.side**2].reshape(frames, self.side, self.side)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "NewlinePool":
        """Make the projector with random parameters."""
        return NewlinePool(self, dtype, rngs)


class NewlinePool(nnx.Module):
    """Two linear layers, every frame's grid made smaller, and newline tokens.

    That of LLaVA-OneVision (Li et al. 2024, arXiv 2408.03326) and LLaVA-Video (Zhang et al. 2024,
    arXiv 2410.02713). The newline token is a parameter.
    """

    def __init__(self, config: NewlinePoolConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        mlp = MlpProjectorConfig(config.inputs, config.outputs, config.activation)
        self.mlp = MlpProjector(mlp, dtype, rngs)
        self.newline = (
            None
            if config.newline == "no_token"
            else nnx.Param(
                jax.random.normal(rngs.params(), (config.outputs,), dtype) * config.outputs**-0.5
            )
        )

    def __call__(
        self, features: Float[Array, "frames patches inputs"]
    ) -> Float[Array, "video_tokens outputs"]:
        """Video embeddings in the order frame, row, column, with newline tokens between them."""
        grid = self.config.grid
        pooled = self._pooled(self.mlp(features).reshape(len(features), grid, grid, -1))
        frames, side, _, width = pooled.shape
        if self.newline is None:
            return pooled.reshape(-1, width)
        newline = self.newline[...]
        if self.config.newline == "grid":
            ends = jnp.broadcast_to(newline, (frames, side, 1, width))
            return jnp.concatenate([pooled, ends], axis=2).reshape(-1, width)
        if self.config.newline == "frame":
            ends = jnp.broadcast_to(newline, (frames, 1, width))
            rows = pooled.reshape(frames, -1, width)
            return jnp.concatenate([rows, ends], axis=1).reshape(-1, width)
        return jnp.concatenate([pooled.reshape(-1, width), newline[None]])

    def _pooled(
        self, frames: Float[Array, "frames grid grid width"]
    ) -> Float[Array, "frames side side width"]:
        grid, side, stride = self.config.grid, self.config.side, self.config.stride
        if self.config.mode == "bilinear":
            matrix = jnp.asarray(bilinear_matrix(grid, side), frames.dtype)
            rows = jnp.einsum("rh,fhwc->frwc", matrix, frames, precision=PRECISION)
            return jnp.einsum("sw,frwc->frsc", matrix, rows, precision=PRECISION)
        blocks = frames[:, : side * stride, : side * stride]
        blocks = blocks.reshape(len(frames), side, stride, side, stride, -1)
        reduce = jnp.mean if self.config.mode == "average" else jnp.max
        return reduce(blocks, axis=(2, 4))


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
