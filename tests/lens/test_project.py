"""The projections, their memory, and which token stands for an option."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer

from flowjax.compilation import memory_of
from flowjax.errors import FlowjaxError
from flowjax.lens.project import logit_lens, option_ids
from flowjax.lens.read import read_generation, read_lens, read_logits
from flowjax.models.decoder import Keep
from flowjax.padding import pad_prompt, padded_mask
from flowjax_experiments.shapes.tokenizer import train_tokenizer
from tests.lens.tiny import LAYERS, LAYOUT, decoder, prompt
from tests.models.parity import llama_tokenizer

MODEL = decoder()


@jax.jit
def traced(padded):
    return MODEL(padded, keep=Keep(hidden=True))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("through", ["input", "output"])
@pytest.mark.parametrize("rows", [1, 21])
def test_the_lens_in_chunks_is_the_softmax_over_the_vocabulary(tied, through, rows):
    model = decoder(tied=tied)
    states = 3 * jax.random.normal(jax.random.key(rows), (rows, model.config.width))
    matrix = np.asarray(model.embedding.embedding[...]).T
    if through == "output" and not tied:
        matrix = np.asarray(model.unembedding.kernel[...])
    logits = np.asarray(states, np.float64) @ matrix.astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    top = logit_lens(model, states, 5, through=through, chunk=8)
    assert top.ids.shape == top.probability.shape == (rows, 5)
    order = np.argsort(-expected, axis=-1)[:, :5]
    np.testing.assert_array_equal(top.ids, order)
    np.testing.assert_allclose(
        top.probability, np.take_along_axis(expected, order, -1), rtol=1e-4, atol=1e-7
    )


def softmax(logits):
    exponentials = np.exp(np.asarray(logits, np.float64))
    return exponentials / exponentials.sum(-1, keepdims=True)


def normed(states):
    """The final norm written out."""
    x = np.asarray(states, np.float64)
    scale = np.asarray(MODEL.norm.scale[...], np.float64)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + MODEL.config.norm_eps) * scale


INPUT = np.asarray(MODEL.embedding.embedding[...], np.float64).T
OUTPUT = np.asarray(MODEL.unembedding.kernel[...], np.float64)


def test_layers_of_the_lens():
    """Input embedding: inputs of layers without norm, but the normed output at the last one."""
    padded, positions = pad_prompt(prompt()), jnp.array([5, 9, 12])
    trace = traced(padded)
    every = MODEL.config.vocabulary
    inputs = np.asarray(trace.hidden)[:, positions]
    output = np.asarray(trace.output)[positions]
    plain = np.stack([*inputs[:-1], normed(output)])
    for through, expected in (
        ("input", softmax(plain @ INPUT)),
        ("output", softmax(normed(np.stack([*inputs[:-1], output])) @ OUTPUT)),
    ):
        read = read_lens(MODEL, padded, positions, k=every, through=through)
        assert read.top.ids.shape == (LAYERS, 3, every)
        ours = np.take_along_axis(expected, np.asarray(read.top.ids), -1)
        np.testing.assert_allclose(read.top.probability, ours, atol=1e-6)
        assert (np.diff(read.top.probability) <= 0).all()
    own = softmax(normed(np.asarray(trace.output)[LAYOUT.length - 1]) @ OUTPUT)
    np.testing.assert_allclose(softmax(read.logits), own, atol=1e-6)


def test_generation_probability_ends_in_the_models_own():
    padded = pad_prompt(prompt())
    raw, with_norm = read_generation(MODEL, padded)
    trace, last = traced(padded), LAYOUT.length - 1
    after = np.stack([*trace.hidden[1:, last], trace.output[last]])
    np.testing.assert_allclose(with_norm, softmax(normed(after) @ OUTPUT), atol=1e-6)
    np.testing.assert_allclose(raw[:-1], softmax(after[:-1] @ OUTPUT), atol=1e-6)
    np.testing.assert_array_equal(raw[-1], with_norm[-1])
    nothing_cut = padded_mask(LAYOUT, (), MODEL.config)
    own = softmax(read_logits(MODEL, padded, nothing_cut))
    np.testing.assert_allclose(raw[-1], own, atol=1e-6)


@pytest.mark.parametrize("through", ["input", "output"])
def test_the_lens_never_holds_all_positions_times_the_vocabulary(through):
    model = decoder(vocabulary=8192)
    padded = pad_prompt(prompt())
    bound = 5 * 128 * 8192 * 4  # a few copies of one chunk's logits
    sizes = {}
    for positions in (512, 4096):
        chosen = jnp.zeros(positions, jnp.int32)
        compiled = read_lens.lower(model, padded, chosen, k=10, through=through).compile()
        sizes[positions] = memory_of(compiled).temp_size_in_bytes
        whole = LAYERS * positions * 8192 * 4
        assert sizes[positions] < bound < whole
    # Positions cost their states and top tokens, not their logits.
    assert sizes[4096] - sizes[512] < LAYERS * (4096 - 512) * 8192 * 4 / 20


@pytest.fixture(scope="module")
def letters() -> Tokenizer:
    return train_tokenizer(["A B C D", "(A) (B) (C) (D)", "question"])


def test_the_option_token_is_the_one_closer_to_the_answer(letters):
    spaced = [letters.token_to_id(f"▁{letter}") for letter in "AB"]
    bare = [letters.token_to_id(letter) for letter in "AB"]
    assert None not in spaced and spaced != bare
    np.testing.assert_array_equal(option_ids(letters, "AB", spaced[0]), spaced)
    np.testing.assert_array_equal(option_ids(letters, "AB", bare[0]), bare)
    # Half way the first token stays; one closer to the bare letter it goes.
    first, other = letters.encode("A", add_special_tokens=False).ids[0], bare[0]
    middle = (first + other) / 2
    step = 1 if other > first else -1
    assert option_ids(letters, "A", int(middle - step))[0] == first
    assert option_ids(letters, "A", int(middle + 2 * step))[0] == other


def test_a_letter_that_is_split_stands_for_itself():
    """Not for the space before it, which would be the same token for every option."""
    tokenizer = llama_tokenizer([])
    space = tokenizer.token_to_id("▁")
    assert [tokenizer.encode(x, add_special_tokens=False).ids[0] for x in "AB"] == [space] * 2
    for base in (space, tokenizer.token_to_id("B")):
        found = option_ids(tokenizer, "AB", base)
        assert found.tolist() == [tokenizer.token_to_id(letter) for letter in "AB"]


def test_a_letter_without_a_token_is_refused(letters):
    with pytest.raises(FlowjaxError, match="letter 'Ж'"):
        option_ids(letters, "AЖ", 0)
