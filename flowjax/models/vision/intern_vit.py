"""InternViT, the image encoder of InternVL (Chen et al. 2023, arXiv 2312.14238)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flowjax.models.activations import Activation
from flowjax.models.stack import layer_at, stacked
from flowjax.models.vision.block import Block, BlockConfig, Norm, read_everything
from flowjax.models.vision.clip import flat_patches
from flowjax.precision import PRECISION


@dataclass(frozen=True)
class InternViTConfig:
    """Sizes and variants of the encoder.

    layers: those up to the feature layer.
    qk_norm_eps: of the norms over the whole width of queries and keys; None where there are none.
    """

    width: int
    mlp_width: int
    layers: int
    heads: int
    image_size: int
    patch_size: int
    channels: int
    norm: Norm
    norm_eps: float
    qkv_bias: bool
    qk_norm_eps: float | None
    activation: Activation

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def block(self) -> BlockConfig:
        """Of every layer; each of its two branches is scaled."""
        return BlockConfig(
            self.width,
            self.mlp_width,
            self.heads,
            self.norm_eps,
            self.activation,
            norm=self.norm,
            qkv_bias=self.qkv_bias,
            qk_norm_eps=self.qk_norm_eps,
            scaled=True,
        )

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "InternViT":
        """Make the encoder with random parameters."""
        return InternViT(self, dtype, rngs)


class InternViT(nnx.Module):
    """Patches of every frame to features; frames do not see each other."""

    def __init__(self, config: InternViTConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.class_embedding = nnx.Param(
            jax.random.normal(rngs.params(), (config.width,), dtype) * 0.02
        )
        self.patch_embedding = nnx.Linear(
            config.channels * config.patch_size**2,
            config.width,
            dtype=dtype,
            param_dtype=dtype,
            precision=PRECISION,
            rngs=rngs,
        )
        self.position_embedding = nnx.Param(
            jax.random.normal(rngs.params(), (1 + config.grid**2, config.width), dtype) * 0.02
        )
        self.layers = stacked(lambda rngs: Block(config.block, dtype, rngs), config.layers, rngs)

    def __call__(
        self, pixel_values: Float[Array, "frames channels size size"]
    ) -> Float[Array, "frames patches width"]:
        """Features of every patch in row-major order, without the class token.

        Raises:
            FlowjaxError: frames are of another size than the position embeddings are for.
        """
        return jax.vmap(self._encode)(pixel_values)

    def _encode(self, image: Float[Array, "c s s"]) -> Float[Array, "patches width"]:
        patches = flat_patches(image, self.config.image_size, self.config.patch_size)
        tokens = self.patch_embedding(patches)
        x = jnp.concatenate([self.class_embedding[...][None], tokens])
        x = x + self.position_embedding[...]

        def step(x: Array, index: Array) -> tuple[Array, None]:
            return layer_at(self.layers, index)(x, read_everything), None

        x, _ = jax.lax.scan(step, x, jnp.arange(self.config.layers))
        return x[1:]
