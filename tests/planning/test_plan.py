"""Plans as users make them, in processes of their own: libtpu is configured once."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from flowjax.mesh import MeshShape
from flowjax.models.video_llm import parameter_shapes
from flowjax.planning.estimate import parameter_bytes
from flowjax.planning.models import planned
from tests.processes import environment

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is for Linux on x86-64 only"
)


def plan(*arguments):
    command = [sys.executable, "-m", "flowjax.cli", "plan", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def small(pllava_oracle, tmp_path_factory):
    """A tiny model on two hosts of TPUs, windows over two copies on each."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    done = plan(
        pllava_oracle, "--on", "v5e:2x4", "--mesh", "data=4,model=2", "--data", "tvbench:100",
        "--edge", "question->last", "--window", 3, "--json", path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout


def test_what_each_device_holds(small, pllava_oracle):
    found, _ = small
    shapes = parameter_shapes(planned(str(pllava_oracle)).config)
    programs = {each["name"]: each for each in found["programs"]}
    total = 2 * sum(map(math.prod, shapes.values()))
    for each in programs.values():
        assert total / 2 < each["parameter_bytes"] < total
        parts = ("parameter_bytes", "kept_bytes", "temporary_bytes")
        assert each["peak_bytes"] == sum(each[part] for part in parts)
    kept = {each["kept_bytes"] for name, each in programs.items() if name != "video and text"}
    assert len(kept) == 1 and min(kept) > 0


def test_flops_are_those_that_the_sweep_counts(small):
    found, _ = small
    prefill, *windows = found["programs"][1:]
    assert prefill["flops"] == pytest.approx(found["flops"]["baseline"] / 2, rel=0.2)
    counted = (found["flops"]["planned"] - found["flops"]["baseline"]) / 4
    # The sweep counts matrix products alone, which in so small a model are not nearly all.
    assert counted < sum(each["flops"] for each in windows) < 1.5 * counted


def test_samples_over_hosts_and_windows_over_copies(small):
    found, said = small
    assert found["mesh"] == {
        "recommended": "data=4,model=2",
        "why": "as asked for",
        "start": "start 2 processes, one a host, with --mesh data=4,model=2",
        "groups": 2,
        "copies": 2,
    }
    hour = 3600 * 2 / found["seconds_per_sample"]
    assert found["samples_per_hour"] == pytest.approx(hour)
    assert found["hours"] == pytest.approx(100 / hour)
    assert "start 2 processes" in said and "samples an hour" in said
    assert all(each["collective_bytes"].get("all-reduce", 0) > 0 for each in found["programs"][1:])


def test_logits_are_whole_on_every_device_as_in_a_run(small, pllava_oracle):
    found, _ = small
    logits = 4 * planned(str(pllava_oracle)).config.decoder.vocabulary
    for each in found["programs"][2:]:  # a prefill's one row is summed up instead
        assert each["collective_bytes"].get("all-gather", 0) >= 1.5 * logits, each["name"]


RESULTS = sorted((ROOT / "benchmarks" / "results" / "plans").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_plans_are_the_arithmetic(path):
    found = json.loads(path.read_text())
    model = MeshShape.parse(found["mesh"]["recommended"]).model
    config, programs = planned(found["model"]).config, found["programs"]
    expected = parameter_bytes(config, found["dtype"], model)
    assert {each["parameter_bytes"] for each in programs} == {expected}
    assert max(each["peak_bytes"] for each in programs) <= found["chip"]["memory"]
    prefill = next(each for each in programs if each["name"] == "prefill")
    assert prefill["flops"] * model == pytest.approx(found["flops"]["baseline"], rel=0.1)


def test_a_model_that_does_not_fit():
    done = plan("llava-next-13b-video-ft", "--on", "v5e:1x1")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1
    assert "parameters 24.85" in done.stderr
    assert "GiB short; v5e:2x2 with --mesh data=2,model=2 would fit" in done.stderr


def test_a_mesh_that_does_not_fit():
    done = plan("llava-next-13b-video-ft", "--on", "v5e:2x2", "--mesh", "data=4")
    assert done.returncode == 2
    assert "GiB short; --mesh data=2,model=2 on it would fit" in done.stderr


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("qwen2.5-vl-7b",), "give --on"),
        (("qwen2.5-vl-7b", "--on", "v5e:4x4", "--video", "big"), "--video 'big'"),
        (("qwen2.5-vl-7b", "--on", "v5e:4x4", "--also", "decode"), "--also decode"),
        (("qwen2.5-vl-7b", "--on", "v5e:4x4", "--mesh", "data=3"), "data times model"),
    ],
)
def test_refused(arguments, said):
    done = plan(*arguments)
    assert done.returncode == 2 and said in done.stderr
