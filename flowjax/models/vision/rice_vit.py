"""RICE-ViT, the vision encoder of LLaVA-OneVision-1.5 (Xie et al. 2025, arXiv 2507.20025).

Every frame has a class token, and queries and keys are rotated by row and column; the class token
by learned angles. Frames do not see each other.

The released code leaves the class tokens out as if the first frame alone had one: of all frames'
tokens in a row it gives all but the first one, up to as many as there are patches. So frame k,
counted from 0, begins k places too early, with the last k - 1 patches of frame k - 1 and its own
class token. It is computed so here, too. One frame, as of a still image, is not concerned.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flowjax.models.activations import Activation
from flowjax.models.attention import PRECISION
from flowjax.models.rope import Rotary
from flowjax.models.stack import layer_at, stacked
from flowjax.models.vision.block import Block, BlockConfig, norm_of, read_everything, rotated
from flowjax.models.vision.siglip_navit import patch_rotary

BLOCK_NORM_EPS = 1e-5
"""Of the norms in the layers, whatever the configuration says of the others."""

ROPE_THETA = 10000.0


@dataclass(frozen=True)
class RiceViTConfig:
    """Sizes of the encoder.

    patch_size: side of a patch in pixels; a patch is of one frame.
    merge: patches per side of the blocks that become one video token.
    norm_eps: of the norm before the first layer.
    """

    width: int
    mlp_width: int
    layers: int
    heads: int
    patch_size: int
    merge: int
    norm_eps: float
    activation: Activation

    @property
    def patch_values(self) -> int:
        """Values of one patch in three channels."""
        return 3 * self.patch_size**2

    @property
    def block(self) -> BlockConfig:
        """Of every layer."""
        return BlockConfig(self.width, self.mlp_width, self.heads, BLOCK_NORM_EPS, self.activation)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "RiceViT":
        """Make the encoder with random parameters."""
        return RiceViT(self, dtype, rngs)


class RiceViT(nnx.Module):
    """Patches of every frame to features."""

    def __init__(self, config: RiceViTConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        width, half = config.width, config.width // config.heads // 2
        self.patch_embedding = nnx.Linear(
            config.patch_values,
            width,
            use_bias=False,
            dtype=dtype,
            param_dtype=dtype,
            precision=PRECISION,
            rngs=rngs,
        )
        self.class_embedding = nnx.Param(
            jax.random.normal(rngs.params(), (width,), dtype) * width**-0.5
        )
        self.class_angle = nnx.Param(jax.random.normal(rngs.params(), (half,), dtype))
        self.input_norm = norm_of("layer_norm", width, config.norm_eps, dtype, rngs)
        self.layers = stacked(lambda rngs: Block(config.block, dtype, rngs), config.layers, rngs)

    def __call__(
        self, pixel_values: Float[Array, "frames rows columns block values"]
    ) -> Float[Array, "frames patches width"]:
        """Features of every patch, block by block, as far as the released code gives them.

        pixel_values: as `flowjax.data.temporal_patches.TemporalPatchPreprocessor` makes them of
            single frames; rows and columns count blocks.
        """
        config = self.config
        frames, rows, columns, _, values = pixel_values.shape
        rotary = self._rotary(rows, columns)
        class_token = self.class_embedding[...][None]

        def encode(patches: Array) -> Array:
            def step(x: Array, index: Array) -> tuple[Array, None]:
                return layer_at(self.layers, index)(x, rotated(rotary, read_everything)), None

            x = jnp.concatenate([class_token, self.patch_embedding(patches)])
            return jax.lax.scan(step, self.input_norm(x), jnp.arange(config.layers))[0]

        # One by one: a large frame's attention weights fill the memory that all of them would need.
        patches = pixel_values.reshape(frames, -1, values)
        tokens = jax.lax.map(encode, patches).reshape(-1, config.width)
        count = frames * patches.shape[1]
        return tokens[1 : 1 + count].reshape(frames, -1, config.width)

    def _rotary(self, rows: int, columns: int) -> Rotary:
        """Rotation of a frame's class token, then of its patches."""
        config = self.config
        patches = patch_rotary(
            rows, columns, config.merge, head_dim=config.width // config.heads, theta=ROPE_THETA
        )
        angle = self.class_angle[...].astype(jnp.float32)
        angle = jnp.concatenate([angle, angle])[None]
        return Rotary(
            jnp.concatenate([jnp.cos(angle), patches.cos]),
            jnp.concatenate([jnp.sin(angle), patches.sin]),
        )
