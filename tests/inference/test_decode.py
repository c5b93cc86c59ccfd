import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.errors import FlowjaxError
from flowjax.inference.compile import compile_pathway
from flowjax.inference.decode import Sampling, choose, generate
from tests.inference.masked import VARIANTS, embedded, masked_tokens
from tests.sweeps.test_engine import long_layout

LOGITS = jnp.log(jnp.array([0.05, 0.5, 0.3, 0.15]))


def shares(sampling, draws=2000):
    steps = jnp.arange(draws, dtype=jnp.int32)
    tokens = jax.vmap(lambda step: choose(LOGITS, step, sampling))(steps)
    return np.bincount(tokens, minlength=4) / draws


def test_greedy_takes_the_most_probable():
    np.testing.assert_array_equal(shares(Sampling(0, 0.1, seed=1)), [0, 1, 0, 0])


def test_sampling_follows_the_probabilities():
    np.testing.assert_allclose(shares(Sampling(1.0)), [0.05, 0.5, 0.3, 0.15], atol=0.05)
    hot = np.sqrt([0.05, 0.5, 0.3, 0.15])
    np.testing.assert_allclose(shares(Sampling(2.0)), hot / hot.sum(), atol=0.05)


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    np.testing.assert_array_equal(shares(Sampling(1.0, 0.5)), [0, 1, 0, 0])
    np.testing.assert_allclose(shares(Sampling(1.0, 0.51)), [0, 0.625, 0.375, 0], atol=0.05)
    np.testing.assert_allclose(shares(Sampling(1.0, 0.9)), [0, 0.526, 0.316, 0.158], atol=0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature -0.1"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_p": 0.0}, "top-p 0.0"),
        ({"top_p": 1.1}, "top-p 1.1"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_sampling_that_cannot_be(values, message):
    with pytest.raises(FlowjaxError, match=message):
        Sampling(**values)


@pytest.fixture(scope="module")
def prompt():
    layout, decoder = long_layout(12), VARIANTS["mha"]
    compiled = compile_pathway(layout, (), decoder.config, room=15)
    return decoder, embedded(decoder, layout), layout, compiled


def test_the_same_seed_gives_the_same_tokens(prompt):
    decoder, x, _, compiled = prompt
    one, same, other = (
        list(generate(decoder, x, compiled, tokens=16, sampling=Sampling(1.0, 0.95, seed)))
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_an_end_token_ends_the_text_and_is_not_given(prompt):
    decoder, x, layout, compiled = prompt
    expected, _ = masked_tokens(decoder, x, layout, (), 8)
    end = expected[5]
    ours = list(generate(decoder, x, compiled, tokens=16, sampling=Sampling(), stop={end}))
    assert ours == expected[: expected.index(end)]


def test_tokens_are_at_least_one_and_have_room(prompt):
    decoder, x, layout, compiled = prompt
    with pytest.raises(FlowjaxError, match="tokens to generate: 0"):
        list(generate(decoder, x, compiled, tokens=0, sampling=Sampling()))
    with pytest.raises(ValueError, match="room for 15 generated tokens, not 16"):
        list(generate(decoder, x, compiled, tokens=17, sampling=Sampling()))
    one = compile_pathway(layout, (), decoder.config, room=0)
    assert len(list(generate(decoder, x, one, tokens=1, sampling=Sampling()))) == 1
