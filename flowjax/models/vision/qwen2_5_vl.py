"""The vision encoder of Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923).

Most layers attend within windows of a frame, some within the whole frame; none across frames.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int32

from flowjax.models.activations import Activation
from flowjax.models.attention import masked_softmax
from flowjax.models.stack import layer_at, stacked
from flowjax.models.vision.block import Block, BlockConfig, read_everything, rotated
from flowjax.models.vision.siglip_navit import patch_rotary
from flowjax.precision import PRECISION

NORM_EPS = 1e-6


@dataclass(frozen=True)
class Qwen25VisionConfig:
    """Sizes of the encoder.

    patch_size: side of a patch in pixels.
    frames_per_patch: frames that a patch spans.
    merge: patches per side of the blocks that become one video token.
    window: blocks per side of a window.
    full_layers: layers that attend within the whole frame.
    tokens_per_second: positions of the decoder's rotary embedding that a second of video takes.
    """

    width: int
    mlp_width: int
    layers: int
    heads: int
    patch_size: int
    frames_per_patch: int
    merge: int
    window: int
    full_layers: tuple[int, ...]
    activation: Activation
    rope_theta: float
    tokens_per_second: int

    @property
    def patch_values(self) -> int:
        """Values of one patch in three channels."""
        return 3 * self.frames_per_patch * self.patch_size**2

    @property
    def block(self) -> BlockConfig:
        """Of every layer."""
        return BlockConfig(
            self.width,
            self.mlp_width,
            self.heads,
            NORM_EPS,
            self.activation,
            norm="rms_norm",
            gated=True,
        )

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs) -> "Qwen25Vision":
        """Make the encoder with random parameters."""
        return Qwen25Vision(self, dtype, rngs)


class Windows(NamedTuple):
    """The windows of a frame, padded to one size.

    patch: int32 [windows, size], index of the patch in the frame, -1 where there is none.
    place: int32 [patches], index of every patch in `patch` flattened.
    """

    patch: Int32[np.ndarray, "windows size"]
    place: Int32[np.ndarray, " patches"]


def frame_windows(rows: int, columns: int, side: int, merge: int) -> Windows:
    """Windows of `side` x `side` blocks from the first row and column on; smaller at the far edges.

    rows, columns: of blocks in the frame, which are numbered row by row.
    """
    padded = np.full((-(-rows // side) * side, -(-columns // side) * side), -1, np.int32)
    padded[:rows, :columns] = np.arange(rows * columns).reshape(rows, columns)
    tiles = padded.reshape(padded.shape[0] // side, side, padded.shape[1] // side, side)
    block = tiles.swapaxes(1, 2).reshape(-1, side * side, 1)
    patch = np.where(block < 0, -1, block * merge**2 + np.arange(merge**2))
    patch = patch.reshape(len(patch), -1).astype(np.int32)
    flat = patch.reshape(-1)
    place = np.flatnonzero(flat >= 0)[np.argsort(flat[flat >= 0])]
    return Windows(patch, place.astype(np.int32))


def attend_in_windows(
    query: Float[Array, "n heads d"],
    key: Float[Array, "n heads d"],
    value: Float[Array, "n heads d"],
    windows: Windows,
) -> Float[Array, "n heads d"]:
    """Softmax attention of every patch over the patches of its window; softmax in float32."""
    patch = jnp.asarray(windows.patch)
    there = patch >= 0
    q, k, v = (part[jnp.maximum(patch, 0)] for part in (query, key, value))
    scores = jnp.einsum(
        "wqhd,wkhd->whqk", q, k, precision=PRECISION, preferred_element_type=jnp.float32
    )
    weights = masked_softmax(scores / jnp.sqrt(jnp.float32(q.shape[-1])), there[:, None, None])
    output = jnp.einsum(
        "whqk,wkhd->wqhd",
        weights.astype(v.dtype),
        v,
        precision=PRECISION,
        preferred_element_type=jnp.float32,
    )
    return output.astype(query.dtype).reshape(-1, *query.shape[1:])[windows.place]


class Qwen25Vision(nnx.Module):
    """Patches of pairs of frames to features; pairs do not see each other."""

    def __init__(self, config: Qwen25VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
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
        windows = frame_windows(rows, columns, config.window, config.merge)
        head_dim = config.width // config.heads
        rotary = patch_rotary(
            rows, columns, config.merge, head_dim=head_dim, theta=config.rope_theta
        )
        full = jnp.array([layer in config.full_layers for layer in range(config.layers)])

        def encode(patches: Array) -> Array:
            def step(x: Array, index: Array) -> tuple[Array, None]:
                def read(query: Array, key: Array, value: Array) -> Array:
                    return jax.lax.cond(
                        full[index],
                        read_everything,
                        functools.partial(attend_in_windows, windows=windows),
                        query,
                        key,
                        value,
                    )

                return layer_at(self.layers, index)(x, rotated(rotary, read)), None

            x = self.patch_embedding(patches)
            return jax.lax.scan(step, x, jnp.arange(config.layers))[0]

        # One by one: a large frame's attention weights fill the memory that all of them would need.
        return jax.lax.map(encode, pixel_values.reshape(frames, -1, values))
