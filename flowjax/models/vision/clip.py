"""The CLIP image encoder (Radford et al. 2021, arXiv 2103.00020), up to its feature layer."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flowjax.errors import FlowjaxError
from flowjax.models.activations import Activation
from flowjax.models.stack import layer_at, stacked
from flowjax.models.vision.block import Block, BlockConfig, norm_of, read_everything
from flowjax.precision import PRECISION


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of the encoder; `layers` counts only those up to the feature layer.

    class_token: whether the class token's feature is given, before those of the patches.
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
    class_token: bool

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def block(self) -> BlockConfig:
        """Of every layer."""
        return BlockConfig(self.width, self.mlp_width, self.heads, self.norm_eps, self.activation)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "ClipVision":
        """Make the encoder with random parameters."""
        return ClipVision(self, dtype, rngs)


def flat_patches(
    image: Float[Array, "c s s"], size: int, patch: int
) -> Float[Array, "patches values"]:
    """Square patches in row-major order, each flattened as (channel, row, column).

    What is left of the image on the right and below, less than a patch wide, is dropped.

    Args:
        image: one frame's pixel values.
        size: the side that the encoder is for.
        patch: side of a patch.

    Raises:
        FlowjaxError: the image has another size.
    """
    height, width = image.shape[-2:]
    if (height, width) != (size, size):
        raise FlowjaxError(
            f"frames have {height} x {width} pixels, but the vision tower's position embeddings "
            f"are for {size} x {size}; set that size in preprocessor_config.json"
        )
    grid = size // patch
    image = image[:, : grid * patch, : grid * patch]
    patches = image.reshape(-1, grid, patch, grid, patch).transpose(1, 3, 0, 2, 4)
    return patches.reshape(grid * grid, -1)


class ClipVision(nnx.Module):
    """Patches of every frame to features; frames do not see each other."""

    def __init__(self, config: ClipConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.class_embedding = nnx.Param(
            jax.random.normal(rngs.params(), (config.width,), dtype) * 0.02
        )
        self.patch_embedding = nnx.Linear(
            config.channels * config.patch_size**2,
            config.width,
            use_bias=False,
            dtype=dtype,
            param_dtype=dtype,
            precision=PRECISION,
            rngs=rngs,
        )
        self.position_embedding = nnx.Param(
            jax.random.normal(rngs.params(), (1 + config.grid**2, config.width), dtype) * 0.02
        )
        self.input_norm = norm_of("layer_norm", config.width, config.norm_eps, dtype, rngs)
        self.layers = stacked(lambda rngs: Block(config.block, dtype, rngs), config.layers, rngs)

    def __call__(
        self, pixel_values: Float[Array, "frames channels size size"]
    ) -> Float[Array, "frames features width"]:
        """Features of every patch in row-major order, after the class token's if that is given."""
        return jax.vmap(self._encode)(pixel_values)

    def last_reads(
        self, pixel_values: Float[Array, "frames channels size size"]
    ) -> tuple[Float[Array, "frames n width"], Float[Array, "frames n width"]]:
        """Queries and keys of the last layer, all heads side by side; the class token is first."""
        before = self.config.layers - 1

        def one(image: Array) -> tuple[Array, Array]:
            return layer_at(self.layers, before).reads(self._through(image, before))

        return jax.vmap(one)(pixel_values)

    def _encode(self, image: Float[Array, "c s s"]) -> Float[Array, "features width"]:
        x = self._through(image, self.config.layers)
        return x if self.config.class_token else x[1:]

    def _through(self, image: Float[Array, "c s s"], layers: int) -> Float[Array, "n width"]:
        """Class token and patches after the first layers."""
        patches = flat_patches(image, self.config.image_size, self.config.patch_size)
        tokens = self.patch_embedding(patches)
        x = jnp.concatenate([self.class_embedding[...][None], tokens])
        x = self.input_norm(x + self.position_embedding[...])

        def step(x: Array, index: Array) -> tuple[Array, None]:
            return layer_at(self.layers, index)(x, read_everything), None

        return jax.lax.scan(step, x, jnp.arange(layers))[0]
