"""Activation functions by their Hugging Face names."""

from typing import Literal, cast, get_args

import jax
from jaxtyping import Array, Float

from flowjax.errors import FlowjaxError

Activation = Literal["gelu", "gelu_pytorch_tanh", "quick_gelu", "silu"]


def read_activation(name: str, field: str) -> Activation:
    """Check the name of an activation found in `field` of a configuration."""
    if name not in get_args(Activation):
        raise FlowjaxError(
            f"{field}: activation {name!r} is not supported; choose "
            f"{', '.join(get_args(Activation))}"
        )
    return cast(Activation, name)


def activate(name: Activation, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Apply an activation; `gelu` is the exact (erf) form."""
    match name:
        case "gelu":
            return jax.nn.gelu(x, approximate=False)
        case "gelu_pytorch_tanh":
            return jax.nn.gelu(x, approximate=True)
        case "quick_gelu":
            return x * jax.nn.sigmoid(1.702 * x)
        case "silu":
            return jax.nn.silu(x)
