import jax
import jax.numpy as jnp
from flax import nnx

from flowjax.files import read_json
from flowjax.models.registry import family_of
from flowjax.models.video_llm import abstract_model


def test_each_is_a_module_of_its_own(pllava_oracle):
    path = pllava_oracle / "config.json"
    config = family_of(read_json(path), "").read_config(read_json(path), "")
    one, other = (abstract_model(config, jnp.dtype(jnp.float32)) for _ in range(2))
    nnx.update(one, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), nnx.state(one)))
    half = abstract_model(config, jnp.dtype(jnp.float16))
    for model, dtype in ((other, jnp.float32), (half, jnp.float16)):
        leaves = jax.tree.leaves(nnx.state(model))
        assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}
