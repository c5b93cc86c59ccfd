"""The vision encoder of Qwen2-VL (Wang et al. 2024, arXiv 2409.12191)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flowjax.models.activations import Activation
from flowjax.models.stack import layer_at, stacked
from flowjax.models.vision.block import Block, BlockConfig, read_everything, rotated
from flowjax.models.vision.qwen3_vl import NORM_EPS
from flowjax.models.vision.siglip_navit import patch_rotary
from flowjax.precision import PRECISION


@dataclass(frozen=True)
class Qwen2VisionConfig:
    """Sizes of the encoder.

    patch_size: side of a patch in pixels.
    frames_per_patch: frames that a patch spans.
    merge: patches per side of the blocks that become one video token.
    """

    width: int
    mlp_width: int
    layers: int
    heads: int
    patch_size: int
    frames_per_patch: int
    merge: int
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

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "Qwen2Vision":
        """Make the encoder with random parameters."""
        return Qwen2Vision(self, dtype, rngs)


class Qwen2Vision(nnx.Module):
    """Patches of pairs of frames to features; pairs do not see each other."""

    def __init__(self, config: Qwen2VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.patch_embedding = nnx.Linear(
            config.patch_values,
            config.width,
            use_bias=False,
            dtype=dtype,
            param_dtype=dtype,
            precision=PRECISION,
            rngs=rngs,
        )
        self.layers = stacked(lambda rngs: Block(config.block, dtype, rngs), config.layers, rngs)

    def __call__(
        self, pixel_values: Float[Array, "frames rows columns block values"]
    ) -> Float[Array, "frames patches width"]:
        """Features of every patch, block by block.

        pixel_values: as `flowjax.data.temporal_patches.TemporalPatchPreprocessor` makes them;
            rows and columns count blocks.
        """
        config = self.config
        frames, rows, columns, _, values = pixel_values.shape
        head_dim = config.width // config.heads
        rotary = patch_rotary(
            rows, columns, config.merge, head_dim=head_dim, theta=config.rope_theta
        )

        def encode(patches: Array) -> Array:
            def step(x: Array, index: Array) -> tuple[Array, None]:
                return layer_at(self.layers, index)(x, rotated(rotary, read_everything)), None

            x = self.patch_embedding(patches)
            return jax.lax.scan(step, x, jnp.arange(config.layers))[0]

        # One by one: a large frame's attention weights fill the memory that all of them would need.
        return jax.lax.map(encode, pixel_values.reshape(frames, -1, values))
