"""Every implementation computes attention as it is defined."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams
from jax.experimental.pallas import tpu as pltpu

from flowjax.kernels.pruned_attention import (
    mosaic_gpu,
    mosaic_tpu,
    pruned_attention,
    stack_maps,
)
from tests.kernels import reference
from tests.kernels.cases import Problem, problem
from tests.kernels.simulated_gpu import compile_once  # noqa: F401 (a fixture)

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
BLOCKS = {
    "reference": (16, 16),
    "xla": (16, 32),
    "mosaic_tpu": (64, 128),
    "mosaic_gpu": (128, 64),
}
DTYPES = {
    "reference": "float32",
    "xla": "float32",
    "mosaic_tpu": "float32",
    "mosaic_gpu": "bfloat16",
}
PROBLEMS = {
    "causality alone, more blocks than slots": problem(333, groups=1, width=64, heads=1, density=1),
    "gathered rows, grouped heads": problem(
        261, groups=4, width=64, heads=4, kv_heads=2, gathered=True
    ),
    "a table for each head, dead rows": problem(
        150, groups=6, width=128, tables=2, kv_heads=2, dead_groups=2
    ),
    "many classes in a block, wide heads": problem(140, groups=90, width=256, scattered=True),
    "nothing allowed, odd width": problem(70, groups=3, width=72, density=0),
}


def run(name: str, given_: Problem, dtype: str) -> np.ndarray:
    """What an implementation computes, kernels in their simulators."""
    blocks = given_.blocks(*BLOCKS[name])
    arrays = given_.arrays(dtype)
    if name == "mosaic_tpu":
        assert mosaic_tpu.refusal(*arrays[:2], blocks) is None
        output = mosaic_tpu.attention(*arrays, blocks, interpret=pltpu.InterpretParams())
    elif name == "mosaic_gpu":
        assert mosaic_gpu.refusal(*arrays[:2], blocks) is None
        # On a real one where JAX runs on it: JAX_PLATFORMS=cuda pytest tests/kernels.
        simulated = {"interpret": InterpretGPUParams(), "workers": 3}
        here = jax.default_backend() == "gpu"
        output = mosaic_gpu.attention(*arrays, blocks, **({} if here else simulated))
    elif name == "reference":
        output = reference.attention(*arrays[:3], given_.mask, *arrays[3:])
    else:
        output = pruned_attention(
            *arrays[:3],
            query_position=arrays[3],
            key_position=arrays[4],
            blocks=blocks,
            implementation=name,
        )
    assert output.dtype == dtype
    return np.asarray(output, np.float64)


@st.composite
def problems(draw):
    heads, kv_heads = draw(st.sampled_from([(1, 1), (2, 1), (2, 2)]))
    return problem(
        draw(st.integers(1, 150)),
        groups=draw(st.integers(1, 60)),
        width=draw(st.sampled_from([64, 80, 128])),
        heads=heads,
        kv_heads=kv_heads,
        tables=draw(st.sampled_from([1, heads])),
        density=draw(st.sampled_from([0.05, 0.5, 0.95])),
        gathered=draw(st.booleans()),
        scattered=draw(st.booleans()),
        dead_groups=draw(st.integers(0, 2)),
        seed=draw(st.integers(0, 1000)),
    )


@pytest.mark.parametrize(
    ("name", "dtype", "which"),
    [(name, dtype, which) for name, dtype in DTYPES.items() for which in PROBLEMS]
    + [(name, "bfloat16", "gathered rows, grouped heads") for name in ("xla", "mosaic_tpu")],
)
class TestEveryImplementation:
    def test_equals_the_definition(self, name, dtype, which):
        given_ = PROBLEMS[which]
        expected = given_.attend(dtype)
        output = run(name, given_, dtype)
        np.testing.assert_allclose(output, expected, atol=TOLERANCE[dtype], rtol=0)
        dead = ~given_.edges.any(2)
        for head in range(output.shape[1]):
            assert (output[dead[head % len(dead)], head] == 0).all()


@pytest.mark.parametrize(
    ("name", "examples"), [("reference", 5), ("xla", 5), ("mosaic_tpu", 2), ("mosaic_gpu", 2)]
)
def test_random_problems(name, examples):
    """Few, since each is a program to compile; test_blocks maps blocks by hundreds."""

    @settings(max_examples=examples)
    @given(problems())
    def check(given_):
        dtype = DTYPES[name]
        output = run(name, given_, dtype)
        np.testing.assert_allclose(output, given_.attend(dtype), atol=TOLERANCE[dtype], rtol=0)

    check()


@pytest.mark.parametrize("name", ["xla", "mosaic_tpu", "mosaic_gpu"])
def test_no_dead_block_is_read(name):
    """Rows of dead blocks hold NaN, which masking by multiplication or addition would show."""
    group = np.repeat(np.arange(3, dtype=np.int32), 128)
    allowed = np.ones((1, 3, 3), bool)
    allowed[:, :, 1] = False
    position = np.arange(len(group), dtype=np.int32)
    rows = np.random.default_rng(0).standard_normal((3, len(group), 1, 64))
    given_ = Problem(group, allowed, position, position, *rows)
    dtype = DTYPES[name]
    expected = given_.attend(dtype)
    rows[1:, group == 1] = np.nan
    output = run(name, given_, dtype)
    np.testing.assert_allclose(output, expected, atol=TOLERANCE[dtype], rtol=0)


def test_stacked_maps_serve_a_scan_over_layers():
    first = problem(60, groups=5, width=16)
    rng = np.random.default_rng(1)
    layers = [
        replace(first, allowed=rng.random((tables, 5, 5)) < density)
        for tables, density in ((1, 0.9), (2, 0.3), (1, 0.0))
    ]
    query, key, value, query_position, key_position = first.arrays("float32")

    def step(carry, blocks):
        output = pruned_attention(
            query,
            key,
            value,
            query_position=query_position,
            key_position=key_position,
            blocks=blocks,
            implementation="xla",
        )
        return carry, output

    stacked = stack_maps([layer.blocks(16, 16) for layer in layers])
    _, outputs = jax.lax.scan(step, None, stacked)
    for layer, output in zip(layers, outputs, strict=True):
        np.testing.assert_allclose(output, layer.attend("float32"), atol=1e-5, rtol=0)
