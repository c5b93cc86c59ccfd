"""SigLIP-NaViT: the image encoder of VideoLLaMA3 (Zhang et al. 2025, arXiv 2501.13106).

A SigLIP encoder (Zhai et al. 2023, arXiv 2303.15343) whose position embedding is a rotation by the
row and column of a patch, so that frames may have any size.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flowjax.models.activations import Activation
from flowjax.models.attention import Sources, attend
from flowjax.models.rope import Rotary, rotate
from flowjax.models.stack import layer_at, stacked
from flowjax.models.vision.block import Block, BlockConfig, norm_of, read_everything, rotated
from flowjax.precision import PRECISION


@dataclass(frozen=True)
class SiglipNavitConfig:
    """Sizes and variants of the encoder.

    rope_theta: base of the rotation's wave lengths.
    across_frames: every patch reads the patches of all frames, and 1 is added to its scores on
        those of its own frame: what eager attention in the released code computes, where a boolean
        mask is added to the scores. Otherwise frames do not see each other.
    """

    width: int
    mlp_width: int
    layers: int
    heads: int
    patch_size: int
    channels: int
    norm_eps: float
    activation: Activation
    rope_theta: float
    across_frames: bool

    @property
    def block(self) -> BlockConfig:
        """Of every layer."""
        return BlockConfig(self.width, self.mlp_width, self.heads, self.norm_eps, self.activation)

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "SiglipNavit":
        """Make the encoder with random parameters."""
        return SiglipNavit(self, dtype, rngs)


def read_all_frames(
    query: Float[Array, "frames n heads d"],
    key: Float[Array, "frames n heads d"],
    value: Float[Array, "frames n heads d"],
) -> Float[Array, "frames n heads d"]:
    """Attention over all frames, with 1 added to the scores on the own frame.

    One frame's queries at a time, as the scores of a whole video would take much memory.
    """
    frames, n = query.shape[:2]
    frame = jnp.repeat(jnp.arange(frames), n)
    position = jnp.arange(frames * n, dtype=jnp.int32)
    own = Sources(key.reshape(-1, *key.shape[2:]), value.reshape(-1, *value.shape[2:]), position)

    def one_frame(index: Array) -> Array:
        bias = (frame == index).astype(jnp.float32)[None]
        return attend(query[index], index * n + position[:n], [own], mask=None, bias=bias).output

    return jax.lax.map(one_frame, jnp.arange(frames))


class SiglipNavit(nnx.Module):
    """Patches of every frame to one feature for every merged block of patches."""

    def __init__(self, config: SiglipNavitConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.patch_embedding = nnx.Linear(
            config.channels * config.patch_size**2,
            config.width,
            dtype=dtype,
            param_dtype=dtype,
            precision=PRECISION,
            rngs=rngs,
        )
        self.layers = stacked(lambda rngs: Block(config.block, dtype, rngs), config.layers, rngs)
        self.output_norm = norm_of("layer_norm", config.width, config.norm_eps, dtype, rngs)

    def __call__(
        self, pixel_values: Float[Array, "frames rows columns merged values"]
    ) -> Float[Array, "frames rows columns width"]:
        """Features of merged blocks: the mean of their patches.

        Args:
            pixel_values: patches in the order of `flowjax.data.preprocess.PatchPreprocessor`.
        """
        frames, rows, columns, merged, _ = pixel_values.shape
        rotary = patch_rotary(
            rows,
            columns,
            math.isqrt(merged),
            head_dim=self.config.width // self.config.heads,
            theta=self.config.rope_theta,
        )
        turned = jax.vmap(functools.partial(rotate, rotary=rotary))
        own_frame = jax.vmap(rotated(rotary, read_everything))

        def all_frames(query: Array, key: Array, value: Array) -> Array:
            return read_all_frames(turned(query), turned(key), value)

        read = all_frames if self.config.across_frames else own_frame
        x = self.patch_embedding(pixel_values).reshape(frames, -1, self.config.width)

        def step(x: Array, index: Array) -> tuple[Array, None]:
            return layer_at(self.layers, index)(x, read), None

        x, _ = jax.lax.scan(step, x, jnp.arange(self.config.layers))
        x = self.output_norm(x)
        return x.reshape(frames, rows, columns, merged, -1).mean(axis=3)


def patch_rotary(rows: int, columns: int, merge: int, *, head_dim: int, theta: float) -> Rotary:
    """Rotation of the patches of one frame by their rows and columns.

    The first half of the angles is a patch's row, and the second its column, over
    `theta**(2i / (head_dim / 2))`.

    Args:
        rows, columns: of blocks of `merge` by `merge` patches; patches come block by block.
        merge: patches along a side of a block.
        head_dim: width of a head, a multiple of 4.
        theta: base of the wave lengths.
    """
    shape = (rows, columns, merge, merge)
    block_row, block_column, row, column = jnp.indices(shape, jnp.float32).reshape(4, -1)
    place = jnp.stack([block_row * merge + row, block_column * merge + column], axis=1)
    half = head_dim // 2
    exponent = jnp.arange(0, half, 2, dtype=jnp.float32) / half
    angle = (place[:, :, None] / theta**exponent).reshape(len(place), half)
    angle = jnp.concatenate([angle, angle], axis=-1)
    return Rotary(jnp.cos(angle), jnp.sin(angle))
