"""A small video model and batches of questions about noise, for tests of training."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from flowjax.models.decoder import DecoderConfig
from flowjax.models.projector import PoolingProjectorConfig
from flowjax.models.rope import Rope
from flowjax.models.video_llm import VideoLLM, VideoLLMConfig
from flowjax.models.vision.clip import ClipConfig
from flowjax.train.instruct import Instructed
from flowjax.train.packing import Segment, pack
from flowjax.train.schedule import Schedule

WIDTH, VOCABULARY, FRAMES, GRID = 32, 64, 2, 2
PLACEHOLDER, QUESTIONS, LENGTH, BATCH = 3, 2, 24, 16
SCHEDULE = Schedule(steps=20, peak=3e-3, warmup=4, decay=0.01, clip=1.0)


def config() -> VideoLLMConfig:
    return VideoLLMConfig(
        family="pllava",
        decoder=DecoderConfig(
            vocabulary=VOCABULARY, width=WIDTH, mlp_width=64, layers=2, heads=8, kv_heads=8,
            head_dim=4, norm_eps=1e-5, rope=Rope(4, 10000.0), qkv_bias=False, qk_norm=False,
            tied_embeddings=False, window=None,
        ),
        vision=ClipConfig(
            width=16, mlp_width=32, layers=1, heads=4, image_size=12, patch_size=3, channels=3,
            norm_eps=1e-5, activation="quick_gelu", class_token=False,
        ),
        projector=PoolingProjectorConfig(
            inputs=16, outputs=WIDTH, grid=(FRAMES, 4, 4), pooling=(FRAMES, GRID, GRID),
            activation="gelu",
        ),
        frames=FRAMES,
        tokens_per_frame=GRID * GRID,
        placeholder=PLACEHOLDER,
    )  # fmt: skip


def model(dtype=jnp.float32) -> VideoLLM:
    return VideoLLM(config(), dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))


def batch_at(step: int, batch: int = BATCH) -> Instructed:
    """Answers follow from the questions, so that there is something to learn."""
    rng = np.random.default_rng(step)
    video = FRAMES * GRID * GRID
    prefix = np.array([1, 5, *[PLACEHOLDER] * video, 6], np.int32)

    def segment() -> Segment:
        ask = rng.integers(8, VOCABULARY - 1, 2).astype(np.int32)
        ids = np.array([*ask, *(ask + 1), 2], np.int32)
        return Segment(ids, ids, np.array([0, 0, 1, 1, 1], np.float32))

    packed = [pack(prefix, [segment() for _ in range(QUESTIONS)], LENGTH) for _ in range(batch)]
    pixels = rng.standard_normal((batch, FRAMES, 3, 12, 12)).astype(np.float32)
    where = np.tile(np.arange(2, 2 + video, dtype=np.int32), (batch, 1))
    stacked = type(packed[0])(*(np.stack(parts) for parts in zip(*packed, strict=True)))
    return Instructed(stacked, where, pixels)
