import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.data.prompt import Prompt, Question, VideoShape
from flowjax.layout import EncodedPrompt, encode_prompt
from flowjax.masks import EdgeMask, causal_mask
from flowjax.models.checkpoint import load_model
from flowjax.models.decoder import Keep, Trace
from flowjax.models.embedded import Embedded
from flowjax.models.families.videollama3 import MODEL_TYPE
from flowjax.models.loaded import LoadedModel
from flowjax_convert.run import convert

ORACLE = Path(__file__).parent / "data"
ORACLE_DEFAULT = ("internvl", "pllava", "videollama3")
"""Families that flowjax reads; a new family's folder is added here with it."""


@dataclass
class Case:
    """One sample of a folder of reference values, and our side of it."""

    loaded: LoadedModel
    meta: dict[str, Any]
    sample: dict[str, Any]
    prefix: str
    values: Any

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[f"{self.prefix}.{name}"]

    def __contains__(self, name: str) -> bool:
        return f"{self.prefix}.{name}" in self.values

    @property
    def layers(self) -> int:
        return self.loaded.config.decoder.layers

    @cached_property
    def question(self) -> Question:
        letters = self.sample["option_letters"]
        written = self.sample.get("option_letters_full") or [
            self.sample["answer"],
            *self.sample["false_options"],
        ]
        by_letter = {text[1]: text[4:].removesuffix("\n") for text in written}
        options = tuple(by_letter[letter] for letter in letters)
        return Question(self.sample["question_without_options"], options, self.sample["gt"])

    @cached_property
    def preprocessed(self) -> np.ndarray:
        """Pixel values that our preprocessor makes of the recorded frames."""
        return self.loaded.preprocess(self["frames"])

    @cached_property
    def pixel_values(self) -> np.ndarray:
        """The recorded pixel values with the axes that our modules read."""
        return self["pixel_values"].reshape(self.preprocessed.shape)

    @cached_property
    def text(self) -> Prompt:
        frames = len(self["frames"])
        timestamps = self["timestamps"] if "timestamps" in self else np.arange(frames)
        shape = VideoShape(self.preprocessed.shape, tuple(map(float, timestamps)))
        return self.loaded.family.prompt(self.loaded.config, self.question, shape)

    @cached_property
    def prompt(self) -> EncodedPrompt:
        return encode_prompt(self.text, self.loaded.tokenizer)

    @cached_property
    def embedded(self) -> Embedded:
        x = _embed(self.loaded.model, self.prompt, self.pixel_values)
        return Embedded(x, jnp.asarray(self.prompt.rope_position))

    @cached_property
    def trace(self) -> Trace:
        group = jnp.zeros(self.prompt.layout.length, jnp.int32)
        return _trace(self.loaded.model, self.embedded, causal_mask(self.layers, group))


def _embed(model, prompt, pixel_values):
    def run(model, ids, position, pixels):
        return model.embed(ids, position, model.encode_video(pixels))

    return jax.jit(run)(model, prompt.ids, prompt.video_position, pixel_values)


@jax.jit
def _trace(model, embedded: Embedded, mask: EdgeMask) -> Trace:
    return model.decoder(embedded, mask, keep=Keep(hidden=True))


def pytest_generate_tests(metafunc):
    if "case" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--oracle-dir")
    folders = chosen or [ORACLE / name for name in ORACLE_DEFAULT]
    params = []
    for folder in folders:
        prefixes = json.loads((folder / "meta.json").read_text())["key_prefixes"]
        params += [
            pytest.param((folder, index, prefix), id=f"{folder.name}-{prefix}")
            for index, prefix in enumerate(prefixes)
        ]
    metafunc.parametrize("case", params, indirect=True, scope="session")


@pytest.fixture(scope="session")
def cases():
    """Cases by folder and prefix, so that each is converted and run once."""
    return {}


@pytest.fixture(scope="session")
def case(request, cases, tmp_path_factory) -> Case:
    folder, index, prefix = request.param
    folder = Path(folder)
    if (folder, prefix) not in cases:
        loaded = next((case.loaded for (path, _), case in cases.items() if path == folder), None)
        if loaded is None:
            out = tmp_path_factory.mktemp("oracle") / "model"
            kind = json.loads((folder / "config.json").read_text())["model_type"]
            # The values were recorded with eager attention.
            eager = "eager" if kind == MODEL_TYPE else None
            convert(str(folder), out, vision_attention=eager)
            loaded = load_model(out)
        meta = json.loads((folder / "meta.json").read_text())
        values = np.load(folder / "expected.npz")
        cases[folder, prefix] = Case(loaded, meta, meta["samples"][index], prefix, values)
    return cases[folder, prefix]
