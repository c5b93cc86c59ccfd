"""The shape that a benchmark is asked for, and its decoder."""

from collections.abc import Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from flowjax.errors import FlowjaxError
from flowjax.models.decoder import Decoder, DecoderConfig

Shape = TypeVar("Shape")


def shape_of(shapes: Mapping[str, Shape], name: str) -> Shape:
    """The shape that `--shape` names.

    Raises:
        FlowjaxError: there is none of this name.
    """
    if name not in shapes:
        raise FlowjaxError(f"--shape {name!r}: choose one of {', '.join(shapes)}")
    return shapes[name]


def random_decoder(config: DecoderConfig, dtype: str) -> Decoder:
    """A decoder with random parameters, made on the device."""
    return jax.jit(lambda: Decoder(config, jnp.dtype(dtype), nnx.Rngs(0)))()
