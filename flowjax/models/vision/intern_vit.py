"""InternViT, the image encoder of InternVL (Chen et al. 2023, arXiv 2312.14238)."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flowjax.errors import FlowjaxError
from flowjax.models.activations import Activation, activate
from flowjax.models.attention import PRECISION, Sources, attend
from flowjax.models.stack import layer_at, stacked

Norm = Literal["layer_norm", "rms_norm"]


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

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "InternViT":
        """Make the encoder with random parameters."""
        return InternViT(self, dtype, rngs)


class InternViTLayer(nnx.Module):
    """One pre-norm encoder block with full attention, each of its two branches scaled."""

    def __init__(self, config: InternViTConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        def linear(inputs: int, outputs: int, bias: bool = True) -> nnx.Linear:
            return nnx.Linear(
                inputs,
                outputs,
                use_bias=bias,
                dtype=dtype,
                param_dtype=dtype,
                precision=PRECISION,
                rngs=rngs,
            )

        def norm(kind: Norm, epsilon: float) -> nnx.LayerNorm | nnx.RMSNorm:
            make = nnx.LayerNorm if kind == "layer_norm" else nnx.RMSNorm
            return make(
                config.width,
                epsilon=epsilon,
                dtype=dtype,
                param_dtype=dtype,
                use_fast_variance=False,
                rngs=rngs,
            )

        width, eps = config.width, config.qk_norm_eps
        self.attention_norm = norm(config.norm, config.norm_eps)
        self.query = linear(width, width, config.qkv_bias)
        self.key = linear(width, width, config.qkv_bias)
        self.value = linear(width, width, config.qkv_bias)
        self.query_norm = None if eps is None else norm("rms_norm", eps)
        self.key_norm = None if eps is None else norm("rms_norm", eps)
        self.output = linear(width, width)
        self.attention_scale = nnx.Param(jnp.ones(width, dtype))
        self.mlp_norm = norm(config.norm, config.norm_eps)
        self.up = linear(width, config.mlp_width)
        self.down = linear(config.mlp_width, width)
        self.mlp_scale = nnx.Param(jnp.ones(width, dtype))
        self.config = config

    def __call__(self, x: Float[Array, "n width"]) -> Float[Array, "n width"]:
        """One image's tokens through the block."""
        normed = self.attention_norm(x)
        query, key, value = self.query(normed), self.key(normed), self.value(normed)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key, value = (
            part.reshape(len(x), self.config.heads, -1) for part in (query, key, value)
        )
        position = jnp.arange(len(x), dtype=jnp.int32)
        attended = attend(query, position, [Sources(key, value, position)], mask=None)
        x = x + self.attention_scale[...] * self.output(attended.output.reshape(x.shape))
        up = activate(self.config.activation, self.up(self.mlp_norm(x)))
        return x + self.mlp_scale[...] * self.down(up)


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
        self.layers = stacked(lambda rngs: InternViTLayer(config, dtype, rngs), config.layers, rngs)

    def __call__(
        self, pixel_values: Float[Array, "frames channels size size"]
    ) -> Float[Array, "frames patches width"]:
        """Features of every patch in row-major order, without the class token.

        Raises:
            FlowjaxError: frames are of another size than the position embeddings are for.
        """
        height, width = pixel_values.shape[-2:]
        size = self.config.image_size
        if (height, width) != (size, size):
            raise FlowjaxError(
                f"frames have {height} x {width} pixels, but the vision tower's position "
                f"embeddings are for {size} x {size}; set that size in preprocessor_config.json"
            )
        return jax.vmap(self._encode)(pixel_values)

    def _encode(self, image: Float[Array, "c s s"]) -> Float[Array, "patches width"]:
        grid, patch = self.config.grid, self.config.patch_size
        patches = image.reshape(-1, grid, patch, grid, patch).transpose(1, 3, 0, 2, 4)
        tokens = self.patch_embedding(patches.reshape(grid * grid, -1))
        x = jnp.concatenate([self.class_embedding[...][None], tokens])
        x = x + self.position_embedding[...]

        def step(x: Array, index: Array) -> tuple[Array, None]:
            return layer_at(self.layers, index)(x), None

        x, _ = jax.lax.scan(step, x, jnp.arange(self.config.layers))
        return x[1:]
