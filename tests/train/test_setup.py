"""A training step of a configuration alone, lowered without parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from flowjax.errors import FlowjaxError
from flowjax.train.config import Lora
from flowjax.train.setup import Setup, lower_step
from tests.train.tiny import FRAMES, GRID, LENGTH, QUESTIONS, SCHEDULE, config


def setup(**changes):
    options = {"frozen": ("vision",), "lora": None, "questions": QUESTIONS, "remat": True}
    return Setup(config(), jnp.dtype("bfloat16"), **options | changes)


def lowered(mesh, batch=2, **changes):
    return lower_step(
        setup(**changes), mesh, SCHEDULE, batch=batch, length=LENGTH,
        pixels=(FRAMES, 3, 12, 12), video=FRAMES * GRID * GRID,
    )  # fmt: skip


def test_what_a_step_takes_and_gives():
    """Trained parameters and their two moments in float32, what is held in bfloat16."""
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    for lora in (None, Lora(2, 4.0)):
        (state, held, _, _), _ = lowered(mesh, lora=lora).in_avals
        trained = jax.tree.leaves(state.parameters)
        assert all(leaf.dtype == jnp.float32 for leaf in trained)
        assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(held))
        assert ("decoder" in held) == (lora is not None)
        moments = sum(leaf.size for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim)
        assert moments == 2 * sum(leaf.size for leaf in trained)


def test_a_window_that_is_shorter_than_the_sequence():
    short = dataclasses.replace(config().decoder, window=8)
    one = dataclasses.replace(setup(), config=dataclasses.replace(config(), decoder=short))
    with pytest.raises(FlowjaxError, match=r"batch\.questions is 2, but rows .* read 8 .* give 1"):
        one.check_window(LENGTH)
    dataclasses.replace(one, questions=1).check_window(LENGTH)
    one.check_window(8)
