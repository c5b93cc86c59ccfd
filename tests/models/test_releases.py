"""Prompts, positions, logits and answers as the versions of `transformers` at release had them.

Recorded by `tests/models/record_release.py`; later versions differ, and the checkpoints were made
for these.
"""

import ast
import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from flowjax.asked.asked import embed
from flowjax.data.prompt import Question, VideoShape
from flowjax.inference.anchor import tokens_until
from flowjax.layout import encode_prompt
from flowjax.models.checkpoint import load_model
from flowjax_convert.run import convert
from tests.models import parity
from tests.models.release_case import (
    CASES,
    NEW_TOKENS,
    QUESTION,
    ROWS,
    frames,
    recording,
    tokenizer,
    weights,
)

RELEASES = [
    ("qwen2_vl", "4.49.0"),
    ("qwen2_5_vl", "4.49.0"),
    ("qwen2_5_vl", "4.57.1"),
    ("qwen3_vl", "4.57.1"),
    ("smolvlm", "4.50.0"),
    ("llava_onevision1_5", "4.57.1"),
]


@pytest.mark.parametrize(("family", "version"), RELEASES)
def test_as_released(family, version, tmp_path):
    recorded = np.load(recording(family, version))
    shapes = {
        str(key): tuple(ast.literal_eval(str(shape)))
        for key, shape in zip(recorded["keys"], recorded["shapes"], strict=True)
    }
    source = tmp_path / "checkpoint"
    source.mkdir()
    save_file(weights(shapes), source / "model.safetensors", {"format": "pt"})
    case = CASES[family]
    tokenizer(case.special).save(str(source / "tokenizer.json"))
    (source / "config.json").write_text(json.dumps(case.config))
    (source / "preprocessor_config.json").write_text(json.dumps(case.preprocessor))
    convert(source, tmp_path / "model")
    ours = load_model(tmp_path / "model")

    pixels = ours.preprocess(frames())
    patches = pixels.reshape(-1, pixels.shape[-1])
    np.testing.assert_allclose(patches[: len(recorded["pixels"])], recorded["pixels"], atol=1e-5)
    if "grid" in recorded:
        side = math.isqrt(pixels.shape[3])
        grid = [pixels.shape[0], pixels.shape[1] * side, pixels.shape[2] * side]
        np.testing.assert_array_equal(grid, recorded["grid"])

    times = tuple(index / float(recorded["fps"]) for index in range(len(frames())))
    question = Question(QUESTION, ())
    shape = VideoShape(pixels.shape, times, len(frames()) / float(recorded["fps"]))
    prompt = encode_prompt(ours.family.prompt(ours.config, question, shape), ours.tokenizer)
    np.testing.assert_array_equal(prompt.ids, recorded["ids"])
    np.testing.assert_array_equal(prompt.rope_position, recorded["positions"])

    embedded = embed(ours.model, prompt, pixels)
    logits = np.asarray(parity.forward(ours.model, embedded)[-1])
    parity.assert_close(logits[::ROWS], recorded["logits"], "logits")
    parity.assert_close(logits[-1], recorded["last"], "last logits")
    tokens = tokens_until(ours.model, embedded, NEW_TOKENS, stop=())
    np.testing.assert_array_equal(tokens, recorded["tokens"])
    assert len(set(tokens or ())) > 2, "the same few tokens again and again test little"
