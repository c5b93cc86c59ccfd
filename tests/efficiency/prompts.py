"""Prompts of random embeddings for small random decoders."""

import jax
import numpy as np

from flowjax.efficiency.method import Prompt, Subject
from flowjax.efficiency.seen import Seen
from flowjax.layout import TokenLayout
from flowjax.pathway import Pathway
from tests.inference.masked import embedded
from tests.sweeps.test_engine import LAYERS

FRAMES, TOKENS = 6, 5


def layout_of(frames: int = FRAMES, tokens: int = TOKENS, more: int = 0) -> TokenLayout:
    """A prompt of four options, with `more` words in its question."""
    names = ["system"] * 3
    names += [f"frame_{index}" for index in range(frames) for _ in range(tokens)]
    names += ["question_stem"] * (3 + more)
    names += [f"option_{letter}" for letter in "AABB"]
    return TokenLayout.from_cells([*names, "instruction", "instruction", "last"], "option_A")


def prompt_of(decoder, *, seed=0, deepstack=0, more=0) -> Prompt:
    """A prompt whose vision tower saw random things."""
    layout = layout_of(more=more)
    keys = jax.random.split(jax.random.key(seed), 2)
    seen = Seen(
        jax.nn.softmax(jax.random.normal(keys[0], (FRAMES, TOKENS))),
        jax.random.normal(keys[1], (FRAMES, TOKENS, 7)),
    )
    x = embedded(decoder, layout, seed=seed, deepstack=deepstack)
    grid = layout.positions("video").reshape(FRAMES, TOKENS)
    letters = np.array([3, 5, 8], np.int32)
    return Prompt(f"sample {seed}", decoder, x, layout, grid, letters, lambda: seen)


def subject_of(decoder) -> Subject:
    """What settings are made for."""
    found = Pathway("found", "strict", LAYERS, (0, 1), (1,), (2,))
    return Subject("pllava", decoder.config.layers, FRAMES, found=(found,))
