"""Low-rank updates of linear layers (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from flowjax.models.stack import stacked
from flowjax.models.video_llm import VideoLLM
from flowjax.precision import PRECISION
from flowjax.train.config import Lora
from flowjax.train.parameters import Parameters, flat

DOWN, UP = "lora_a", "lora_b"


class LoraLinear(nnx.Linear):
    """A linear layer to which `scaling * (x lora_a) lora_b` is added."""

    def __init__(self, of: nnx.Linear, rank: int, scaling: float, rngs: nnx.Rngs) -> None:
        super().__init__(
            of.in_features,
            of.out_features,
            use_bias=of.use_bias,
            dtype=of.dtype,
            param_dtype=of.param_dtype,
            precision=of.precision,
            rngs=rngs,
        )
        self.lora_a = nnx.Param(jnp.zeros((of.in_features, rank), of.param_dtype))
        self.lora_b = nnx.Param(jnp.zeros((rank, of.out_features), of.param_dtype))
        self.scaling = scaling

    def __call__(
        self,
        inputs: Float[Array, "n inputs"],
        out_sharding: NamedSharding | PartitionSpec | None = None,
    ) -> Float[Array, "n outputs"]:
        """The layer's output and the update's."""
        down = jnp.dot(inputs, self.lora_a[...], precision=PRECISION)
        update = jnp.dot(down, self.lora_b[...], precision=PRECISION)
        return super().__call__(inputs, out_sharding) + self.scaling * update


def add_lora(model: VideoLLM, lora: Lora) -> None:
    """Put updates beside the decoder's layers, in a model that has shapes for parameters."""
    layers = model.decoder.layers
    for name in lora.targets:
        of, count = getattr(layers, name), model.config.decoder.layers

        def make(rngs: nnx.Rngs, of: nnx.Linear = of) -> LoraLinear:
            return LoraLinear(of, lora.rank, lora.scaling, rngs)

        setattr(
            layers, name, nnx.eval_shape(lambda make=make, n=count: stacked(make, n, nnx.Rngs(0)))
        )


def first_updates(parameters: Parameters, lora: Lora, seed: int) -> Parameters:
    """Parameters with updates that change nothing yet, as PEFT begins them: float32.

    `lora_a` is uniform within 1 / sqrt(inputs) of 0, and `lora_b` is 0.
    """
    leaves = flat(parameters)
    for index, name in enumerate(lora.targets):
        at = ("decoder", "layers", name)
        layers, inputs, outputs = leaves[(*at, "kernel")].shape
        key = jax.random.fold_in(jax.random.key(seed), index)
        bound = inputs**-0.5
        leaves[(*at, DOWN)] = jax.random.uniform(
            key, (layers, inputs, lora.rank), minval=-bound, maxval=bound
        )
        leaves[(*at, UP)] = jnp.zeros((layers, lora.rank, outputs), jnp.float32)
    return unflatten_dict(leaves)


def merged(parameters: Parameters, lora: Lora) -> Parameters:
    """Parameters without updates, which are added to the weights.

    Computed in float32 and rounded once to the weight's dtype, as PEFT merges an adapter.
    """
    leaves = flat(parameters)
    for name in lora.targets:
        at = ("decoder", "layers", name)
        down, up = leaves.pop((*at, DOWN)), leaves.pop((*at, UP))
        leaves[(*at, "kernel")] = _merge(leaves[(*at, "kernel")], down, up, lora.scaling)
    return unflatten_dict(leaves)


@jax.jit
def _merge(kernel: Array, down: Array, up: Array, scaling: ArrayLike) -> Array:
    update = jnp.einsum("lir,lro->lio", down, up, precision=jax.lax.Precision.HIGHEST)
    return (kernel.astype(jnp.float32) + scaling * update).astype(kernel.dtype)
