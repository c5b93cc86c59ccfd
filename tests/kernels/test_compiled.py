"""The kernels compile for accelerators that are not here."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from flowjax.kernels.pruned_attention import block_map, block_shape, mosaic_gpu
from tests.processes import environment

CHIPS = ["v5e", *(pytest.param(chip, marks=pytest.mark.slow) for chip in ("v5p", "v6e"))]


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is for Linux on x86-64 only"
)
@pytest.mark.parametrize("chip", CHIPS)
def test_the_tpu_compiler_takes_the_kernel(tmp_path, chip):
    """In a process of its own: libtpu is configured once, by the environment."""
    path = tmp_path / "compiled.json"
    module = "flowjax_benchmarks.kernel_tpu"
    command = [sys.executable, "-m", module, "--json", str(path), "--chip", chip]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["compiled"]
    assert {row["chip"] for row in rows} == {chip}
    assert {row["positions"] for row in rows} == {1280, 16_384}
    for row in rows:
        assert row["kernels"] == 1
        size = 4 if row["dtype"] == "float32" else 2
        query = row["positions"] * 32 * row["width"] * size
        assert row["block_shape"] == ([512, 1024] if row["cut"] == "nothing" else [256, 512])
        assert row["output_bytes"] == query
        # At most the inputs once more, in the kernel's layout: nothing of rows x rows.
        assert row["temporary_bytes"] < 3.5 * query
        area = row["kept_blocks"] * row["block_shape"][0] * row["block_shape"][1]
        live = area * (1 if row["tables"] > 1 else 32) * 4 * row["width"]
        assert live <= row["flops"] < 3 * live


CUDA = ("jax_plugins.xla_cuda13", "nvidia")
"""What the extra `cuda-compile` brings, with `nvdisasm` among the latter."""


def absent() -> str | None:
    """What is missing to compile for a GPU."""
    for name in CUDA:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return name
    folders = importlib.util.find_spec("nvidia").submodule_search_locations
    if not any((Path(each) / "cu13/bin/nvdisasm").exists() for each in folders):
        return "nvdisasm"
    return None


@pytest.mark.skipif(
    absent() is not None, reason=f"{absent()} is not here: flowjax-videollm[cuda-compile] brings it"
)
@pytest.mark.slow
def test_the_gpu_kernel_becomes_sound_machine_code(tmp_path):
    """In a process of its own: the compiler's output is dumped where the environment says."""
    path = tmp_path / "compiled.json"
    command = [sys.executable, "-m", "flowjax_benchmarks.kernel_gpu", "--json", str(path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert result["ptxas"]["release"]
    assert {row["width"] for row in result["compiled"]} >= {64, 96, 128, 256}
    for row in [*result["compiled"], *result["jaxs_own"]]:
        assert row["target"] == "sm_90a"
        # Of an item, not of a visit, and only where rows take the most registers.
        few = row["name"] in ("256 wide", "four words")
        assert row["spilled_bytes"] <= (64 if few else 0), row["name"]
        assert [each for each in row["warnings"] if not (few and "spilled" in each)] == []
        assert row["shared_bytes"] <= 227 * 1024
        assert row["wgmma"] == row["wgmma_asked"] > 0
        for visit in row["visits"].values():
            assert visit["waits"] == 2  # one for scores, one for values: none is serialised
            assert visit["local_memory"] == 0
    for row in result["compiled"]:
        assert row["stray_descriptors"] == [], row["name"]
    quickest = {row["name"]: row["visits"]["full"]["instructions"] for row in result["jaxs_own"]}
    for row in result["compiled"]:
        if row["width"] == 128:
            assert row["visits"]["full"]["instructions"] <= 1.02 * quickest["causal False"]


@pytest.mark.parametrize(
    ("rows", "heads", "kv_heads", "width"),
    [
        (1280, 32, 32, 128),
        (16_384, 32, 32, 128),
        (4728, 28, 4, 128),
        (333, 8, 8, 64),
        (333, 4, 2, 96),
        (1000, 16, 8, 256),
    ],
)
def test_the_gpu_kernel_lowers_for_cuda(rows, heads, kv_heads, width):
    group = np.arange(rows, dtype=np.int32) // 144
    table = np.tri(int(group[-1]) + 1, dtype=bool)[None]
    table[:, 1:, 0] = False
    position = np.arange(rows, dtype=np.int32)
    block_q, block_k = block_shape(width, "mosaic_gpu")
    blocks = block_map(group, table, position, position, block_q=block_q, block_k=block_k)
    query = jax.ShapeDtypeStruct((rows, heads, width), "bfloat16")
    key = jax.ShapeDtypeStruct((rows, kv_heads, width), "bfloat16")
    exported = jax.export.export(mosaic_gpu.attention, platforms=["cuda"])(
        query, key, key, position, position, blocks
    )
    text = exported.mlir_module()
    assert "mosaic_gpu" in text
    # No array of rows x rows, in any number of heads.
    assert f"x{rows}x{rows}x" not in text
    assert exported.out_avals[0].shape == (rows, heads, width)
