"""The loop: exact resume, micro batches, several devices."""

import json
import random
import select
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.errors import FlowjaxError
from flowjax.train.ahead import Ahead, drawers
from flowjax.train.loop import train
from flowjax.train.schedule import Schedule
from flowjax.train.step import Sums
from tests.processes import environment

SCHEDULE = Schedule(steps=12, peak=0.05, warmup=3, decay=0.1, clip=1.0)


def parameters():
    return {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}


def batch_at(step):
    rng = np.random.default_rng(step)
    x = rng.standard_normal((8, 4)).astype(np.float32)
    return {"x": x, "y": (x @ np.arange(12, dtype=np.float32).reshape(4, 3))}


def loss_of(parameters, batch, key):
    del key
    error = batch["x"] @ parameters["kernel"] + parameters["bias"] - batch["y"]
    count = jnp.asarray(float(len(error)))
    return Sums(jnp.sum(error**2), count, {"largest": (jnp.sum(jnp.abs(error)), count)})


def noisy_loss(parameters, batch, key):
    noise = 0.1 * jax.random.normal(key, batch["x"].shape)
    return loss_of(parameters, batch | {"x": batch["x"] + noise}, key)


def run(
    folder, *, micro=2, stop_at=None, loss=noisy_loss, save_every=5, batches=batch_at, **others
):
    return train(
        parameters(), loss, batches, SCHEDULE, folder, seed=1, micro=micro,
        save_every=save_every, log_every=1, stop_at=stop_at, **others,
    )  # fmt: skip


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_that_is_stopped_goes_on_exactly(tmp_path):
    whole = run(tmp_path / "whole")
    assert [line["step"] for line in log(tmp_path / "whole")] == list(range(1, 13))
    for stop in (3, 7, 11):
        run(tmp_path / "stopped", stop_at=stop)  # saved after 5 and 10 only
    resumed = run(tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert log(tmp_path / "stopped") == log(tmp_path / "whole")
    assert log(tmp_path / "whole")[-1]["loss"] < log(tmp_path / "whole")[0]["loss"]


def test_a_run_that_is_killed_goes_on_exactly(tmp_path):
    """Anywhere: in a step, or while a checkpoint is written."""
    code = """
        import sys, time
        from pathlib import Path
        from tests.train import test_loop

        def slowly(step):
            time.sleep(0.1)
            return test_loop.batch_at(step)

        test_loop.run(Path(sys.argv[1]), save_every=2, batches=slowly)
    """
    lines = random.randrange(1, 12)
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "run"], env=environment()
    )
    file = tmp_path / "run" / "log.jsonl"
    while child.poll() is None and not (
        file.exists() and len(file.read_text().splitlines()) >= lines
    ):
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL, f"it had {lines} lines or more"
    resumed = run(tmp_path / "run", save_every=2)
    whole = run(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert log(tmp_path / "run") == log(tmp_path / "whole"), f"killed after {lines} lines"


def test_a_finished_run_is_not_run_again(tmp_path):
    first = run(tmp_path / "run")
    lines = (tmp_path / "run" / "log.jsonl").read_bytes()
    again = run(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, again, first)
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == lines


def test_micro_batches_add_up(tmp_path):
    whole = run(tmp_path / "8", micro=8, loss=loss_of)
    parts = run(tmp_path / "1", micro=1, loss=loss_of)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), whole, parts)


def test_only_kernels_decay(tmp_path):
    def flat(parameters, batch, key):
        del key
        zero = 0.0 * jnp.sum(parameters["kernel"]) * jnp.sum(batch["x"])
        return Sums(zero, jnp.asarray(1.0), {})

    begun = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}
    after = train(
        begun, flat, batch_at, SCHEDULE, tmp_path / "run", seed=0, micro=8, save_every=99,
        log_every=99,
    )  # fmt: skip
    assert float(after["kernel"].max()) < 1
    np.testing.assert_array_equal(after["bias"], 1)


def test_a_frozen_part_stays(tmp_path):
    out = run(tmp_path / "run", frozen=("kernel",))
    np.testing.assert_array_equal(out["kernel"], parameters()["kernel"])
    assert float(np.abs(out["bias"]).min()) > 0


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    def broken(parameters, batch, key):
        sums = loss_of(parameters, batch, key)
        return sums._replace(loss=sums.loss * jnp.nan)

    with pytest.raises(FlowjaxError, match="the loss is nan at step 1"):
        run(tmp_path / "run", loss=broken)


def test_runs_side_by_side_are_those_alone(tmp_path):
    seeds = (3, 4)

    def of(seed):
        return lambda step: batch_at(100 * seed + step)

    def stacked(step):
        return jax.tree.map(lambda *parts: np.stack(parts), *(of(seed)(step) for seed in seeds))

    options: dict[str, Any] = {"seed": 1, "micro": 2, "save_every": 5, "log_every": 4}
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), parameters())
    together = tmp_path / "together"
    train(both, noisy_loss, stacked, SCHEDULE, together, **options, stop_at=6, side_by_side=True)
    found = train(both, noisy_loss, stacked, SCHEDULE, together, **options, side_by_side=True)
    for index, seed in enumerate(seeds):
        folder = tmp_path / str(seed)
        alone = train(parameters(), noisy_loss, of(seed), SCHEDULE, folder, **options)
        for name, leaf in alone.items():
            np.testing.assert_allclose(found[name][index], leaf, rtol=0, atol=1e-6)
        for one, two in zip(log(together), log(folder), strict=True):
            assert one["loss"][index] == pytest.approx(two["loss"], abs=1e-5)


def test_one_run_of_several_may_fail_alone(tmp_path):
    def broken(parameters, batch, key):
        sums = loss_of(parameters, batch, key)
        return sums._replace(loss=sums.loss * jnp.where(batch["y"].mean() > 1e6, jnp.nan, 1))

    def large(step):
        one = batch_at(step)
        return {"x": np.stack([one["x"]] * 2), "y": np.stack([one["y"], one["y"] + 1e7])}

    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), parameters())
    options: dict[str, Any] = {"seed": 1, "micro": 8, "save_every": 99, "log_every": 99}
    folder = tmp_path / "run"
    found = train(both, broken, large, SCHEDULE, folder, **options, side_by_side=True)
    assert np.isfinite(found["kernel"][0]).all() and not np.isfinite(found["kernel"][1]).any()


def test_batches_drawn_ahead_are_those_of_their_steps():
    pool = drawers(1)
    ahead = Ahead([str, float], pool, depth=3)
    assert [ahead(0, 5), ahead(1, 5), ahead(0, 6), ahead(0, 2)] == ["5", 5.0, "6", "2"]
    ahead.close()
    pool.shutdown()
    assert Ahead([str], None, depth=3)(0, 1) == "1"


def test_a_killed_processs_drawers_end():
    """The pipe that they inherit stays open until they are gone."""
    code = """
        import os, signal
        from flowjax.train.ahead import drawers
        pool = drawers(1)
        print(pool.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    child = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(child, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) != process.pid
        ended, _, _ = select.select([process.stdout], [], [], 20)
        assert ended, "the worker still waits"
    assert process.returncode == -signal.SIGKILL


def test_several_devices_give_what_one_gives(tmp_path):
    """In a process of its own, for the number of devices is fixed when JAX starts."""
    code = """
        import sys
        from pathlib import Path
        import jax, numpy as np
        from jax.sharding import Mesh
        from flowjax.models.sharding import DATA, MODEL
        from tests.train.test_loop import run

        grid = np.array(jax.devices()).reshape(2, 1)
        out = run(Path(sys.argv[1]), micro=2, mesh=Mesh(grid, (DATA, MODEL)))
        np.savez(sys.argv[2], **jax.device_get(out))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "run", tmp_path / "out.npz"],
        env=environment(devices=2),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    one = run(tmp_path / "one", micro=2)
    with np.load(tmp_path / "out.npz") as several:
        for name, value in one.items():
            np.testing.assert_allclose(several[name], value, rtol=0, atol=1e-5)
