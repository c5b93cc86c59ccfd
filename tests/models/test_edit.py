"""Edits of a forward against PyTorch hooks on a random tiny model of `transformers`."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlavaNextVideoForConditionalGeneration

import flowjax as fj
from flowjax.patches import site_shape
from tests.models import parity
from tests.models.test_llava_next_video import CASES, TOKENIZER, config, processor

LAYER = 1
RELATIVE = 1e-5


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A model with fewer key heads than heads, whose heads are not as wide as the stream."""
    text, vision, top, frames = CASES["mqa-conv"]
    theirs = LlavaNextVideoForConditionalGeneration(config(frames, text=text, vision=vision, **top))
    parity.randomise(theirs)
    files = {"preprocessor_config.json": json.loads(processor().to_json_string())}
    pair = parity.converted(tmp_path_factory.mktemp("edit"), theirs, TOKENIZER, files)
    return parity.ask(pair)


def module_at(layer, at):
    """The module of a torch layer that gives the values at a site; of `heads`, that reads them."""
    return {
        "residual": layer,
        "attention": layer.self_attn,
        "heads": layer.self_attn.o_proj,
        "mlp": layer.mlp,
    }[at]


def torch_with(asked, change, at):
    """Logits at the last position with `change` applied by a hook."""

    def after(module, inputs, output):
        if isinstance(output, tuple):
            return (change(output[0][0])[None], *output[1:])
        return change(output[0])[None]

    def before(module, inputs):
        return (change(inputs[0][0])[None], *inputs[1:])

    module = module_at(parity.decoder_layers(asked.pair.theirs)[LAYER], at)
    if at == "heads":
        handle = module.register_forward_pre_hook(before)
    else:
        handle = module.register_forward_hook(after)
    try:
        with torch.no_grad():
            return asked.pair.theirs(**asked.inputs).logits[0, -1].numpy()
    finally:
        handle.remove()


def assert_close(ours, expected):
    """In norm: single logits of 3 differ by as much as float32's rounding adds up to, 1e-5."""
    assert np.linalg.norm(ours - expected) <= RELATIVE * np.linalg.norm(expected)


@pytest.mark.parametrize("at", ["residual", "attention", "heads", "mlp"])
def test_activation_patching_is_that_of_hooks(asked, at):
    """Other values at some positions of one layer, and all of its values scaled."""
    layout = asked.prompt.layout
    decoder = asked.pair.ours.model.decoder
    rows = layout.positions("question_stem")
    site = site_shape(decoder.config, at)
    there = np.random.default_rng(0).normal(size=(len(rows), *site)).astype(np.float32)

    def patch(x):
        x = x.clone()
        x[torch.from_numpy(rows)] = torch.from_numpy(there.reshape(len(rows), -1))
        return x

    plain = fj.forward(asked.prepared).logits
    ours = fj.forward(
        asked.prepared,
        edit=lambda layer, x: jnp.where(layer == LAYER, x.at[rows].set(there), x),
        at=at,
    )
    expected = torch_with(asked, patch, at)
    assert_close(ours.logits, expected)
    assert np.abs(ours.logits - plain).max() > 1e-3
    scaled = fj.forward(
        asked.prepared, edit=lambda layer, x: jnp.where(layer == LAYER, x * 0.5, x), at=at
    )
    expected = torch_with(asked, lambda x: x * 0.5, at)
    assert_close(scaled.logits, expected)
    assert np.abs(scaled.logits - plain).max() > 1e-3
