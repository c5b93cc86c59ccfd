"""Who serves a call, and what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention import (
    assembler,
    block_shape,
    mosaic_gpu,
    mosaic_tpu,
    pruned_attention,
    xla,
)
from tests.kernels.cases import problem

GIVEN = problem(40, groups=3, width=64)


def call(given_, blocks, implementation=None, dtype="float32"):
    query, key, value, query_position, key_position = given_.arrays(dtype)
    return pruned_attention(
        query,
        key,
        value,
        query_position=query_position,
        key_position=key_position,
        blocks=blocks,
        implementation=implementation,
    )


@pytest.mark.parametrize("name", ["mosaic_tpu", "mosaic_gpu"])
def test_a_kernel_asked_for_by_name_says_why_it_cannot_serve(name):
    device = name.removeprefix("mosaic_").upper()
    with pytest.raises(FlowjaxError, match=f"{name}.* needs a {device}; this is a cpu"):
        call(GIVEN, GIVEN.blocks(128, 128), name)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_only_the_default_falls_back(platform, monkeypatch):
    """On a GPU of another kind, and on a TPU with blocks that its kernel cannot take."""
    blocks = GIVEN.blocks(8, 8)
    expected = call(GIVEN, blocks, "xla")
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    np.testing.assert_array_equal(call(GIVEN, blocks), expected)
    reason = {"gpu": "compute capability 9.0", "tpu": "multiples of 16 x 128"}[platform]
    with pytest.raises(FlowjaxError, match=reason):
        call(GIVEN, blocks, f"mosaic_{platform}")


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_the_default_takes_the_platforms_kernel(platform, monkeypatch):
    kernel = {"gpu": mosaic_gpu, "tpu": mosaic_tpu}[platform]
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "devices", lambda: [type("H100", (), {"compute_capability": "9.0"})()])
    monkeypatch.setattr(assembler, "find", lambda: None)
    monkeypatch.setattr(kernel, "attention", xla.attention)
    monkeypatch.setattr(xla, "attention", None)
    call(GIVEN, GIVEN.blocks(*block_shape(64)), dtype="bfloat16")


@pytest.mark.parametrize(
    ("kernel", "dtype", "width", "blocks", "says"),
    [
        (mosaic_tpu, "float16", 64, (16, 128), "float16"),
        (mosaic_tpu, "float32", 320, (16, 128), "head size 320: at most 256"),
        (mosaic_tpu, "float32", 64, (8, 128), "multiples of 16 x 128"),
        (mosaic_tpu, "float32", 64, (16, 64), "multiples of 16 x 128"),
        (mosaic_gpu, "float32", 64, (128, 128), "give bfloat16"),
        (mosaic_gpu, "bfloat16", 320, (128, 64), "head size 320: at most 256"),
        (mosaic_gpu, "bfloat16", 64, (64, 128), "give 128 x 64 or 128 x 128"),
        (mosaic_gpu, "bfloat16", 256, (128, 128), "shared memory"),
    ],
)
def test_a_kernel_names_what_it_cannot_take(kernel, dtype, width, blocks, says):
    query = jnp.zeros((40, 2, width), dtype)
    assert says in kernel.refusal(query, query[:, :1], GIVEN.blocks(*blocks))


@pytest.mark.parametrize("kernel", [mosaic_tpu, mosaic_gpu])
def test_a_kernel_refuses_more_classes_than_it_has_words_for(kernel):
    blocks = GIVEN.blocks(128, 128)
    query = jnp.zeros((40, 2, 64), "bfloat16")
    assert kernel.refusal(query, query, blocks) is None
    many = replace(blocks, row_words=np.zeros((1, 1, 5, 128), np.int32))
    assert "more than 128 classes" in kernel.refusal(query, query, many)


def test_the_tpu_kernel_refuses_more_visits_than_scalar_memory_holds():
    query = jnp.zeros((40, 2, 64), "bfloat16")
    blocks = replace(GIVEN.blocks(128, 128), visits=np.zeros((1, 140_000), np.int32))
    assert "140000 live blocks" in mosaic_tpu.refusal(query, query, blocks)


def test_a_map_of_other_rows_is_refused():
    with pytest.raises(FlowjaxError, match="40 query rows and 40 key rows: attention has 30 and"):
        call(problem(30, groups=3, width=64), GIVEN.blocks(16, 16))


def test_heads_must_agree():
    three = problem(40, groups=3, width=64, heads=3, kv_heads=2)
    with pytest.raises(FlowjaxError, match="3 query heads are no multiple of 2 key heads"):
        call(three, three.blocks(16, 16))
    tables = problem(40, groups=3, width=64, heads=4, tables=2)
    with pytest.raises(FlowjaxError, match="block map of 2 heads: give 1 or 4"):
        call(tables, tables.blocks(16, 16))


@pytest.mark.parametrize("transform", [jax.grad, lambda f: lambda x: jax.jvp(f, (x,), (x,))])
def test_derivatives_are_refused_by_name(transform):
    query, key, value, query_position, key_position = GIVEN.arrays("float32")

    def total(query):
        return pruned_attention(
            query,
            key,
            value,
            query_position=query_position,
            key_position=key_position,
            blocks=GIVEN.blocks(16, 16),
        ).sum()

    with pytest.raises(FlowjaxError, match="pruned attention 'xla' has no derivatives"):
        transform(total)(query)
