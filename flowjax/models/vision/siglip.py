"""The SigLIP image encoder (Zhai et al. 2023, arXiv 2303.15343), up to its feature layer."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flowjax.models.activations import Activation
from flowjax.models.stack import layer_at, stacked
from flowjax.models.vision.block import Block, BlockConfig, norm_of, read_everything
from flowjax.models.vision.clip import flat_patches
from flowjax.precision import PRECISION


@dataclass(frozen=True)
class SiglipConfig:
    """Sizes of the encoder; `layers` counts only those up to the feature layer.

    output_norm: whether a norm follows the last of them.
    """

    width: int
    mlp_width: int
    layers: int
    heads: int
    image_size: int
    patch_size: int
    channels: int
    norm_eps: float
    activation: Activation
    output_norm: bool

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def block(self) -> BlockConfig:
        """Of every layer."""
        return BlockConfig(self.width, self.mlp_width, self.heads, self.norm_eps, self.activation)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "SiglipVision":
        """Make the encoder with random parameters."""
        return SiglipVision(self, dtype, rngs)


class SiglipVision(nnx.Module):
    """Patches of every frame to features; frames do not see each other."""

    def __init__(self, config: SiglipConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.patch_embedding = nnx.Linear(
            config.channels * config.patch_size**2,
            config.width,
            dtype=dtype,
            param_dtype=dtype,
            precision=PRECISION,
            rngs=rngs,
        )
        self.position_embedding = nnx.Param(
            jax.random.normal(rngs.params(), (config.grid**2, config.width), dtype) * 0.02
        )
        self.layers = stacked(lambda rngs: Block(config.block, dtype, rngs), config.layers, rngs)
        self.output_norm = (
            norm_of("layer_norm", config.width, config.norm_eps, dtype, rngs)
            if config.output_norm
            else None
        )

    def __call__(
        self, pixel_values: Float[Array, "frames channels size size"]
    ) -> Float[Array, "frames patches width"]:
        """Features of every patch in row-major order."""
        return jax.vmap(self._encode)(pixel_values)

    def last_reads(
        self, pixel_values: Float[Array, "frames channels size size"]
    ) -> tuple[Float[Array, "frames n width"], Float[Array, "frames n width"]]:
        """Queries and keys of the last layer, all heads side by side."""
        before = self.config.layers - 1

        def one(image: Array) -> tuple[Array, Array]:
            return layer_at(self.layers, before).reads(self._through(image, before))

        return jax.vmap(one)(pixel_values)

    def _encode(self, image: Float[Array, "c s s"]) -> Float[Array, "patches width"]:
        x = self._through(image, self.config.layers)
        return x if self.output_norm is None else self.output_norm(x)

    def _through(self, image: Float[Array, "c s s"], layers: int) -> Float[Array, "n width"]:
        """Patches after the first layers."""
        patches = flat_patches(image, self.config.image_size, self.config.patch_size)
        x = self.patch_embedding(patches) + self.position_embedding[...]

        def step(x: Array, index: Array) -> tuple[Array, None]:
            return layer_at(self.layers, index)(x, read_everything), None

        return jax.lax.scan(step, x, jnp.arange(layers))[0]
