"""The kernels compile for accelerators that are not here."""

import importlib.util
import json
import subprocess
import sys

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
        query = row["positions"] * 32 * 128 * size
        assert row["output_bytes"] == query
        # At most the inputs once more, in the kernel's layout: nothing of rows x rows.
        assert row["temporary_bytes"] < 3.5 * query
        live = 256 * 512 * row["kept_blocks"] * (1 if row["tables"] > 1 else 32)
        assert live * 4 * 128 <= row["flops"] < 3 * live * 4 * 128


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
