"""A small decoder and a prompt for it."""

import jax
import jax.numpy as jnp
from flax import nnx

from flowjax.layout import TokenLayout
from flowjax.models.decoder import Decoder, DecoderConfig
from flowjax.models.embedded import Embedded
from flowjax.models.rope import Rope

LAYERS, HEADS, WIDTH = 3, 4, 32
NAMES = (
    ["system"] * 5
    + ["frame_0"] * 4
    + ["frame_1"] * 4
    + ["instruction"]
    + ["question_stem"] * 5
    + ["option_A"] * 3
    + ["option_B"] * 2
    + ["instruction"] * 3
    + ["last"]
)
LAYOUT = TokenLayout.from_cells(NAMES, "option_A")


def decoder(vocabulary: int = 60, *, tied: bool = False) -> Decoder:
    config = DecoderConfig(
        vocabulary=vocabulary,
        width=WIDTH,
        mlp_width=48,
        layers=LAYERS,
        heads=HEADS,
        kv_heads=2,
        head_dim=8,
        norm_eps=1e-5,
        rope=Rope(8, 1e4),
        qkv_bias=True,
        qk_norm=False,
        tied_embeddings=tied,
        window=None,
    )
    return Decoder(config, jnp.dtype(jnp.float32), nnx.Rngs(0))


def prompt(layout: TokenLayout = LAYOUT, seed: int = 0) -> Embedded:
    x = jax.random.normal(jax.random.key(seed), (layout.length, WIDTH))
    return Embedded.of(x)
