"""One device, several that divide batches, parameters or both: the same losses."""

import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flowjax.errors import FlowjaxError
from flowjax.train.gathered import gather_in
from flowjax.train.instruct import instruction_loss
from flowjax.train.loop import train
from tests.processes import environment
from tests.train.tiny import QUESTIONS, SCHEDULE, batch_at, model

MESHES = {"data": (8, 1), "model": (1, 8), "both": (4, 2)}

CHILD = """
    import sys
    from pathlib import Path
    import jax
    from flowjax.mesh import MeshShape
    from flowjax.train.setup import layout_over
    from tests.train.test_parallel import MESHES, losses

    for name, shape in MESHES.items():
        mesh = MeshShape(*shape).mesh(jax.devices())
        losses(Path(sys.argv[1]) / name, micro=1, mesh=mesh, layout=layout_over(mesh))
"""


def losses(folder, *, micro=2, remat=False, dtype=jnp.float32, **options):
    computed = model(dtype)
    gather = gather_in(computed, options["mesh"]) if "mesh" in options else lambda tree: tree
    graph, _ = nnx.split(computed)
    parameters = nnx.to_pure_dict(nnx.state(model()))
    loss = instruction_loss(graph, QUESTIONS, remat=remat, gather=gather)
    out = train(
        parameters, loss, batch_at, SCHEDULE, folder, seed=0, micro=micro, save_every=99,
        log_every=1, frozen=("vision",), **options,
    )  # fmt: skip
    return out, log(folder)


def log(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return losses(tmp_path_factory.mktemp("alone"))


def test_it_learns(alone):
    assert len(alone[1]) == SCHEDULE.steps and alone[1][-1] < alone[1][0] - 0.1


def test_meshes_give_what_one_device_gives(alone, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), tmp_path],
        env=environment(devices=8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name in MESHES:
        np.testing.assert_allclose(log(tmp_path / name), alone[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", [{"micro": 16}, {"micro": 1}, {"remat": True}])
def test_parts_of_batches_and_recomputing_change_nothing(alone, tmp_path, options):
    out, found = losses(tmp_path, **options)
    np.testing.assert_allclose(found, alone[1], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(
        out["vision"]["patch_embedding"]["kernel"], alone[0]["vision"]["patch_embedding"]["kernel"]
    )


def test_bfloat16_is_for_computing_alone(alone, tmp_path):
    out, found = losses(tmp_path, dtype=jnp.bfloat16, compute=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(found, alone[1], rtol=0, atol=0.05)
    assert not np.array_equal(found, alone[1])
    kept = out["decoder"]["layers"]["query"]["kernel"]
    assert not np.array_equal(kept, kept.astype(jnp.bfloat16).astype(jnp.float32))


def test_a_batch_that_cannot_be_divided(tmp_path):
    with pytest.raises(FlowjaxError, match=r"16 examples cannot be divided .* a multiple of 3"):
        losses(tmp_path, micro=3)


def test_frozen_parts_are_named(tmp_path):
    graph, state = nnx.split(model())
    loss = instruction_loss(graph, QUESTIONS, remat=False)
    for names, said in ((("visio",), "'visio'.*decoder, projector, vision"), (("vision", "decoder",
                        "projector"), "nothing is left")):  # fmt: skip
        with pytest.raises(FlowjaxError, match=said):
            train(
                nnx.to_pure_dict(state), loss, batch_at, SCHEDULE, tmp_path, seed=0, micro=1,
                save_every=9, log_every=9, frozen=names,
            )  # fmt: skip
