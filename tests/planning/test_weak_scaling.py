"""A device's work stays what it was as devices and work grow together."""

import json
import subprocess
import sys

import pytest

from tests.processes import environment

SLOW = pytest.param("training step", marks=pytest.mark.slow)


@pytest.mark.parametrize("program", ["windows", SLOW])
def test_flops_of_a_device_along_the_data_axis(tmp_path, program):
    path = tmp_path / "scaling.json"
    module = "flowjax_benchmarks.weak_scaling"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            module,
            "--json",
            path,
            "--sizes",
            "1",
            "2",
            "8",
            "--program",
            program,
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    alone, two, eight = json.loads(path.read_text())["programs"]
    assert (alone["devices"], two["devices"], eight["devices"]) == (1, 2, 8)
    for several in (two, eight):
        assert several["flops_per_device"] == pytest.approx(alone["flops_per_device"], rel=0.05)
        sums = several["collective_bytes_per_device"].get("all-reduce", 0)
        assert sums > 0 if program == "training step" else sums == 0
    # What grows with the devices, however little, is beyond any bound on many of them.
    assert eight["flops_per_device"] <= two["flops_per_device"]
    assert not alone["collective_bytes_per_device"]
