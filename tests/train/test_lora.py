"""LoRA: what is added, what is trained, and the merged weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flowjax.errors import FlowjaxError
from flowjax.models.embedded import Embedded
from flowjax.train.config import LINEAR, Lora
from flowjax.train.lora import add_lora, first_updates, merged
from flowjax.train.parameters import by_path, divide
from flowjax.train.setup import Setup
from tests.train.tiny import config, model

LORA = Lora(rank=3, alpha=6.0)


def logits(parameters, lora=None):
    of = nnx.eval_shape(model)
    if lora is not None:
        add_lora(of, lora)
    decoder = nnx.merge(nnx.split(of)[0], parameters).decoder
    x = decoder.embedding(jnp.arange(9))
    return decoder.logits(decoder(Embedded.of(x)).output)


@pytest.fixture(scope="module")
def parameters():
    return nnx.to_pure_dict(nnx.state(model()))


def trained(parameters, lora):
    """As after some steps: no update is zero."""
    key = jax.random.key(1)
    begun = first_updates(parameters, lora, seed=0)
    return jax.tree.map_with_path(
        lambda path, x: 0.3 * jax.random.normal(key, x.shape) if path[-1].key == "lora_b" else x,
        begun,
    )


def test_updates_begin_with_nothing(parameters):
    begun = first_updates(parameters, LORA, seed=0)
    np.testing.assert_allclose(logits(begun, LORA), logits(parameters), rtol=0, atol=1e-6)
    down = begun["decoder"]["layers"]["query"]["lora_a"]
    assert down.shape == (2, 32, 3) and 0 < float(jnp.abs(down).max()) <= 32**-0.5


@pytest.mark.parametrize("targets", [LINEAR, ("query", "down")])
def test_merged_weights_compute_the_same(parameters, targets):
    lora = Lora(rank=3, alpha=6.0, targets=targets)
    updated = trained(parameters, lora)
    found = merged(updated, lora)
    jax.tree.map(lambda a, b: a.shape == b.shape or pytest.fail("shape"), found, parameters)
    np.testing.assert_allclose(logits(found), logits(updated, lora), rtol=0, atol=1e-4)
    assert float(jnp.abs(logits(found) - logits(parameters)).max()) > 0.1
    changed = {
        path for path, leaf in by_path(found).items() if (leaf != by_path(parameters)[path]).any()
    }
    assert changed == {f"decoder/layers/{name}/kernel" for name in targets}


def test_merged_weights_are_rounded_once(parameters):
    updated = trained(parameters, LORA)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), parameters)
    layers = updated["decoder"]["layers"]
    for name in LINEAR:
        low["decoder"]["layers"][name] = {
            "kernel": low["decoder"]["layers"][name]["kernel"],
            "lora_a": layers[name]["lora_a"],
            "lora_b": layers[name]["lora_b"],
        }
    kernel = merged(low, LORA)["decoder"]["layers"]["up"]["kernel"]
    one = low["decoder"]["layers"]["up"]
    product = np.einsum("lir,lro->lio", *(np.asarray(one[n]) for n in ("lora_a", "lora_b")))
    exact = np.asarray(one["kernel"], np.float32) + np.float32(2) * product
    assert kernel.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(kernel, np.float32), exact, rtol=2**-8, atol=1e-6)


def test_the_decoder_itself_stays(parameters):
    setup = Setup(config(), jnp.dtype("float32"), ("vision",), LORA, 2, False)
    state = nnx.to_pure_dict(nnx.state(setup.model()))
    parts = divide(state, setup.held(by_path(state)))
    paths = by_path(parts.trained)
    assert {path for path in paths if path.startswith("decoder")} == {
        f"decoder/layers/{name}/{part}" for name in LINEAR for part in ("lora_a", "lora_b")
    }
    assert {path.split("/")[0] for path in paths} == {"decoder", "projector"}
    frozen = Setup(config(), jnp.dtype("float32"), ("decoder/layers",), LORA, 2, False)
    with pytest.raises(FlowjaxError, match="'decoder/layers' holds what lora trains"):
        frozen.held(by_path(state))
