"""Cutting arrays into blocks and copying views."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowjax_convert.writer
from flowjax_convert.mapping import Rule
from flowjax_convert.plan import Parameter
from flowjax_convert.writer import blocks, chunk_shape, contiguous


def parameter(path, shape, *, stacked=True, dtype=np.float32):
    rule = Rule("l.{layer}" if stacked else "key", path)
    return Parameter(path, shape, np.dtype(dtype), rule, ("l.0",))


@given(st.data())
def test_blocks_cover_an_array_once_and_in_whole_chunks(data):
    chunk, counts = (data.draw(st.lists(st.integers(1, 5), min_size=n, max_size=n)) for n in [2, 2])
    shape = tuple(size * count for size, count in zip(chunk, counts, strict=True))
    limit = data.draw(st.integers(1, 200))
    seen = np.zeros(shape, int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flowjax_convert.writer, "BLOCK", limit)
        for where in blocks(shape, tuple(chunk), 4):
            seen[where] += 1
            assert all(part.start % size == 0 for part, size in zip(where, chunk, strict=True))
            size = 4 * np.prod([part.stop - part.start for part in where])
            assert size <= max(limit, 4 * np.prod(chunk))
    assert (seen == 1).all()


def test_blocks_of_a_scalar():
    assert list(blocks((), (), 4)) == [()]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (31, 33), (32, 64), (65, 7)])
def test_contiguous_copies_transposed_views(shape, dtype):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    copy = contiguous(array.T, np.dtype(dtype))
    assert copy.flags.c_contiguous and copy.dtype == dtype
    np.testing.assert_array_equal(copy, array.T.astype(dtype))
    np.testing.assert_array_equal(contiguous(array, np.dtype(dtype)), array.astype(dtype))
    np.testing.assert_array_equal(contiguous(array[0][::-1], np.dtype(dtype)), copy[::-1, 0])


@pytest.mark.parametrize(
    "of, chunk",
    [
        # 4096 x 4096 float32 is 64 MiB: sixteen parts of 4 MiB along the axis that devices share.
        (parameter("decoder/layers/query/kernel", (32, 4096, 4096)), (1, 4096, 256)),
        (parameter("decoder/layers/down/kernel", (32, 11008, 4096)), (1, 688, 4096)),
        (parameter("decoder/layers/down/kernel", (32, 3, 4096)), (1, 3, 4096)),
        (parameter("decoder/layers/mlp_norm/scale", (32, 4096)), (1, 4096)),
        (parameter("decoder/norm/scale", (4096,), stacked=False), (4096,)),
        (
            parameter("decoder/embedding/embedding", (32064, 4096), stacked=False),
            (2004, 4096),
        ),
        (parameter("decoder/layers/query/kernel", (32, 64, 64)), (1, 64, 64)),
    ],
)
def test_chunks_are_layers_cut_where_devices_share_them(of, chunk):
    assert chunk_shape(of) == chunk
