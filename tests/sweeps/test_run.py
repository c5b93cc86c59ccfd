"""Whole sweeps: killed and resumed, on several devices, within a budget."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from flax import nnx

from flowjax.data.encode import write_mp4
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.sweeps import engine
from flowjax.sweeps.cost import Cost
from flowjax.sweeps.plan import footprint, plan_sweep
from flowjax.sweeps.protocol import protocol
from flowjax_convert.run import convert
from tests.processes import environment
from tests.random_checkpoint import write_random_checkpoint
from tests.sweeps.test_plan import config, video_layout
from tests.videos import moving_square

CHILD = Path(__file__).with_name("child_sweep.py")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    write_random_checkpoint(folder / "checkpoint", ["What colour is very large? red green blue"])
    convert(folder / "checkpoint", folder / "model")
    (folder / "clips").mkdir()
    for size in (64, 80):
        write_mp4(folder / "clips" / f"{size}.mp4", moving_square(12, size), 10)
    return folder


def start(inputs, out, samples):
    arguments = [sys.executable, CHILD, inputs / "model", inputs / "clips", out, str(samples)]
    return subprocess.Popen(
        [str(argument) for argument in arguments],
        env=environment(),
        stderr=subprocess.PIPE,
    )


def finish(process):
    _, error = process.communicate()
    assert process.returncode == 0, error.decode()


def kill_and_resume(inputs, tmp_path, samples, kills):
    rng = random.Random(0)
    began = time.monotonic()
    finish(start(inputs, tmp_path / "whole", samples))
    whole_seconds = time.monotonic() - began
    out = tmp_path / "killed"
    survived = 0
    for _ in range(kills):
        process = start(inputs, out, samples)
        try:
            process.wait(rng.uniform(0.2, 0.9) * whole_seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        done = len(list((out / "parts").glob("[0-9]*.parquet"))) if out.exists() else 0
        assert done >= survived, "a finished sample was lost"
        survived = done
    finish(start(inputs, out, samples))
    expected = pq.read_table(tmp_path / "whole" / "results.parquet")
    assert expected.num_rows == samples * 5 * 8
    assert pq.read_table(out / "results.parquet").equals(expected)


def test_killed_and_resumed(inputs, tmp_path):
    kill_and_resume(inputs, tmp_path, samples=5, kills=1)


@pytest.mark.slow
def test_200_samples_killed_ten_times(inputs, tmp_path):
    kill_and_resume(inputs, tmp_path, samples=200, kills=10)


@pytest.mark.parametrize("mesh", ["4x2", pytest.param("2x4", marks=pytest.mark.slow)])
def test_eight_devices_give_the_results_of_one(mesh, inputs, tmp_path):
    clip = next((inputs / "clips").glob("*.mp4"))
    command = [
        sys.executable, "-m", "flowjax.cli", "sweep", inputs / "model", "--video", clip,
        "--question", "What colour?", "--option", "red", "--option", "blue", "--answer", "A",
        "--window", "3", "--edges", "vql-to-ql", "--edges", "cross-frame",
    ]  # fmt: skip
    tables = []
    for devices, shape in ((1, "1x1"), (8, mesh)):
        out = tmp_path / shape
        done = subprocess.run(
            [str(word) for word in (*command, "--mesh", shape, "--out", out)],
            env=environment(devices),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        tables.append(pq.read_table(out / "results.parquet"))
    one, eight = tables
    for column in ("base_probability", "new_probability", "new_probability_true"):
        np.testing.assert_allclose(eight[column], one[column], rtol=0, atol=1e-5)


def test_the_memory_budget_is_obeyed():
    """Measured by the compiler: kept states and the largest temporaries stay below the budget."""
    sizes = config(layers=16, width=128, heads=4)
    layout = video_layout(frames=2, tokens=2)
    decoder = Decoder(sizes, jnp.dtype(jnp.float32), nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (layout.length, 128))
    embedded = Embedded.of(x)
    asked = protocol(["vql-to-ql", "question-and-options-to-last"], width=1)
    cells = asked.cells(layout, sizes.layers, sizes.heads)
    knockouts = [cell.knockout for cell in cells]
    footprints = [footprint(layout, knockout) for knockout in knockouts]
    free = plan_sweep(layout.length, footprints, sizes)
    cost = Cost(sizes, 4)
    budget = cost.kept_bytes(free.length) + cost.prefill_bytes(free.length) + 50_000
    tight = plan_sweep(layout.length, footprints, sizes, budget=budget)
    assert len(tight.batches) > len(free.batches)
    measured = engine.peak_bytes(decoder, embedded, layout, knockouts, tight)
    assert measured <= tight.bytes <= budget
    answers = engine.planned(decoder, embedded, layout, knockouts, budget=budget)
    unlimited = engine.planned(decoder, embedded, layout, knockouts)
    np.testing.assert_allclose(
        answers.collect(len(cells)), unlimited.collect(len(cells)), rtol=0, atol=1e-4
    )


def test_the_estimate_of_memory_holds_for_the_papers_sweep():
    sizes = config(layers=4, width=128, heads=4)
    layout = video_layout(frames=4, tokens=100)
    decoder = Decoder(sizes, jnp.dtype(jnp.float32), nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (layout.length, 128))
    embedded = Embedded.of(x)
    knockouts = [
        cell.knockout for cell in protocol(width=2).cells(layout, sizes.layers, sizes.heads)
    ]
    footprints = [footprint(layout, knockout) for knockout in knockouts]
    plan = plan_sweep(layout.length, footprints, sizes)
    measured = engine.peak_bytes(decoder, embedded, layout, knockouts, plan)
    assert measured <= plan.bytes <= 3 * measured
