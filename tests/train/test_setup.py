"""A training step of a configuration alone, lowered without parameters."""

import dataclasses
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from flowjax.errors import FlowjaxError
from flowjax.train.config import Lora
from flowjax.train.setup import Setup, lower_step
from tests.processes import environment
from tests.train.tiny import FRAMES, GRID, LENGTH, QUESTIONS, SCHEDULE, config

CHILD = """
    import jax
    from flowjax.mesh import MeshShape
    from tests.train.test_setup import compiled

    for copies in (1, 8):
        mesh = MeshShape(copies).mesh(jax.devices()[:copies])
        print(compiled(mesh, batch=copies).cost_analysis()["flops"])
"""


def setup(**changes):
    options = {"frozen": ("vision",), "lora": None, "questions": QUESTIONS, "remat": True}
    return Setup(config(), jnp.dtype("bfloat16"), **options | changes)


def lowered(mesh, batch=2, **changes):
    return lower_step(
        setup(**changes), mesh, SCHEDULE, batch=batch, length=LENGTH,
        pixels=(FRAMES, 3, 12, 12), video=FRAMES * GRID * GRID,
    )  # fmt: skip


def compiled(mesh, batch):
    return lowered(mesh, batch).compile()


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


def test_each_of_several_devices_computes_its_share():
    """As many examples a device on eight of them as on one: the same FLOPs, within 5%."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD)],
        env=environment(devices=8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    one, eight = map(float, done.stdout.split())
    assert eight == pytest.approx(one, rel=0.05)


def test_a_window_that_is_shorter_than_the_sequence():
    short = dataclasses.replace(config().decoder, window=8)
    one = dataclasses.replace(setup(), config=dataclasses.replace(config(), decoder=short))
    with pytest.raises(FlowjaxError, match=r"batch\.questions is 2, but rows .* read 8 .* give 1"):
        one.check_window(LENGTH)
    dataclasses.replace(one, questions=1).check_window(LENGTH)
    one.check_window(8)
