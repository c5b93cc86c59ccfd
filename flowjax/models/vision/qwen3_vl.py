"""The vision encoder of Qwen3-VL (Bai et al. 2025, arXiv 2511.21631)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from flowjax.models.activations import Activation
from flowjax.models.stack import layer_at, stacked
from flowjax.models.vision.block import Block, BlockConfig, read_everything, rotated
from flowjax.models.vision.siglip_navit import patch_rotary
from flowjax.precision import PRECISION

NORM_EPS = 1e-6


@dataclass(frozen=True)
class Qwen3VisionConfig:
    """Sizes of the encoder.

    patch_size: side of a patch in pixels.
    frames_per_patch: frames that a patch spans.
    merge: patches per side of the blocks that become one video token.
    positions: rows, and columns, of the grid of learned position embeddings.
    deepstack_layers: layers whose output goes to the decoder's first layers, ascending.
    """

    width: int
    mlp_width: int
    layers: int
    heads: int
    patch_size: int
    frames_per_patch: int
    merge: int
    positions: int
    deepstack_layers: tuple[int, ...]
    activation: Activation
    rope_theta: float

    @property
    def patch_values(self) -> int:
        """Values of one patch in three channels."""
        return 3 * self.frames_per_patch * self.patch_size**2

    @property
    def block(self) -> BlockConfig:
        """Of every layer."""
        return BlockConfig(self.width, self.mlp_width, self.heads, NORM_EPS, self.activation)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "Qwen3Vision":
        """Make the encoder with random parameters."""
        return Qwen3Vision(self, dtype, rngs)


def interpolation_matrix(length: int, size: int) -> Float32[np.ndarray, "size length"]:
    """Linear interpolation of `length` values at `size` points, the first and last on the ends."""
    point = np.arange(size) * (length - 1) / max(size - 1, 1)
    distance = np.abs(point[:, None] - np.arange(length))
    return np.maximum(1 - distance, 0).astype(np.float32)


class Qwen3Vision(nnx.Module):
    """Patches of pairs of frames to features; pairs do not see each other."""

    def __init__(self, config: Qwen3VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.patch_embedding = nnx.Linear(
            config.patch_values,
            config.width,
            dtype=dtype,
            param_dtype=dtype,
            precision=PRECISION,
            rngs=rngs,
        )
        self.position_embedding = nnx.Param(
            jax.random.normal(rngs.params(), (config.positions**2, config.width), dtype) * 0.02
        )
        self.layers = stacked(lambda rngs: Block(config.block, dtype, rngs), config.layers, rngs)

    def __call__(
        self, pixel_values: Float[Array, "frames rows columns block values"]
    ) -> Float[Array, "features frames patches width"]:
        """Features of every patch, block by block: the last layer's, then `deepstack_layers`'.

        pixel_values: as `flowjax.data.temporal_patches.TemporalPatchPreprocessor` makes them;
            rows and columns count blocks.
        """
        config = self.config
        frames, rows, columns, _, values = pixel_values.shape
        head_dim = config.width // config.heads
        position = self._positions(rows, columns)
        rotary = patch_rotary(
            rows, columns, config.merge, head_dim=head_dim, theta=config.rope_theta
        )
        kept_layers = jnp.array(config.deepstack_layers)[:, None, None]

        def encode(patches: Array) -> Array:
            def step(carry: tuple[Array, Array], index: Array) -> tuple[tuple[Array, Array], None]:
                x, kept = carry
                x = layer_at(self.layers, index)(x, rotated(rotary, read_everything))
                return (x, jnp.where(kept_layers == index, x, kept)), None

            x = self.patch_embedding(patches) + position
            nothing = jnp.zeros((len(kept_layers), *x.shape), x.dtype)
            (x, kept), _ = jax.lax.scan(step, (x, nothing), jnp.arange(config.layers))
            return jnp.concatenate([x[None], kept])

        # One by one: a large frame's attention weights fill the memory that all of them would need.
        features = jax.lax.map(encode, pixel_values.reshape(frames, -1, values))
        return features.swapaxes(0, 1)

    def _positions(self, rows: int, columns: int) -> Float[Array, "patches width"]:
        """The grid of position embeddings, stretched in float32 over a frame of blocks."""
        table, side, merge = self.position_embedding[...], self.config.positions, self.config.merge
        grid = table.astype(jnp.float32).reshape(side, side, -1)
        by_row = interpolation_matrix(side, rows * merge).reshape(rows, merge, side)
        by_column = interpolation_matrix(side, columns * merge).reshape(columns, merge, side)
        blocks = jnp.einsum(
            "rms,cnt,stw->rcmnw", by_row, by_column, grid, precision=PRECISION, optimize=True
        )
        return blocks.reshape(-1, table.shape[-1]).astype(table.dtype)
