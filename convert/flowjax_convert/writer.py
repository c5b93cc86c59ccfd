"""Writing parameters as an Orbax checkpoint, a layer and a block at a time.

Orbax saves arrays that exist in memory. Here its leaves are `StreamedParameter`s, whose type
handler writes Orbax's array files block by block from the memory-mapped checkpoint; all else that
makes a checkpoint (metadata, finalising) is Orbax's own, so that it restores without flowjax.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from jaxtyping import Shaped
from orbax.checkpoint.future import Future

from flowjax.models.checkpoint import nested
from flowjax.models.orbax_log import without_expected_warnings
from flowjax.models.sharding import split_axes
from flowjax_convert.plan import Parameter, Plan
from flowjax_convert.source import Source

SMALLEST_CHUNK = 2**19
"""Bytes; a chunk is one file, and one device reads whole chunks."""
MOST_PARTS = 16
"""Into which a layer of a parameter is cut along the axis that devices share."""
BLOCK = 16 * 2**20
"""Bytes that one thread converts at a time."""
STRIP = 16
"""Columns of a transposed array that are copied at a time."""
THREADS = 4

Report = Callable[[int], None]
"""Called with a number of bytes that have been written."""


@dataclass(frozen=True)
class StreamedParameter:
    """A parameter that is still in its checkpoint."""

    parameter: Parameter
    source: Source
    report: Report


class StreamedParameterHandler(ocp.type_handlers.NumpyHandler):
    """Writes `StreamedParameter`s as the arrays that Orbax's handler for numpy arrays reads."""

    async def serialize(
        self,
        values: Sequence[Any],
        infos: Sequence[ocp.type_handlers.ParamInfo],
        args: Sequence[ocp.SaveArgs] | None = None,
    ) -> Sequence[Future]:
        """Write all values before returning."""
        del args
        for info in infos:
            await info.await_path_creation()
        jobs = [
            job
            for value, info in zip(values, infos, strict=True)
            for job in _jobs(value, create_array(Path(info.path), value.parameter))
        ]
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                for _ in pool.map(lambda job: job(), jobs):
                    pass
            finally:
                pool.shutdown(cancel_futures=True)
        return []


def write_parameters(path: Path, plan: Plan, source: Source, report: Report) -> None:
    """Write an Orbax checkpoint at `path`, which must not exist; not atomic by itself."""
    registry = ocp.type_handlers.create_type_handler_registry(
        (StreamedParameter, StreamedParameterHandler())
    )
    leaves = {
        parameter.path: StreamedParameter(parameter, source, report)
        for parameter in plan.parameters
    }
    with without_expected_warnings():
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, type_handler_registry=registry)
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(path.absolute(), args=ocp.args.PyTreeSave(nested(leaves)))


def create_array(path: Path, parameter: Parameter) -> ts.TensorStore:
    """An empty array file for a parameter."""
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": {
            "shape": list(parameter.shape),
            "chunks": list(chunk_shape(parameter)),
            "compressor": None,  # weights do not compress
        },
        "dtype": parameter.dtype.name,
        "store_data_equal_to_fill_value": True,
    }
    return ts.open(spec, create=True).result()


def chunk_shape(parameter: Parameter) -> tuple[int, ...]:
    """One layer, cut along the axis that a device mesh shares while parts stay large enough."""
    shape = list(parameter.shape)
    if parameter.stacked:
        shape[0] = 1
    size = int(np.prod(shape)) * parameter.dtype.itemsize
    parts = 1
    for axis in split_axes(parameter.path)[:1]:
        while parts < MOST_PARTS and shape[axis] % 2 == 0 and size // (2 * parts) >= SMALLEST_CHUNK:
            parts, shape[axis] = 2 * parts, shape[axis] // 2
    return tuple(max(1, length) for length in shape)


def _jobs(value: StreamedParameter, array: ts.TensorStore) -> Iterator[Callable[[], None]]:
    """One job per tensor of the checkpoint."""

    def job(index: int) -> Callable[[], None]:
        return lambda: _write_tensor(value, array, index)

    return (job(index) for index in range(len(value.parameter.keys)))


def _write_tensor(value: StreamedParameter, array: ts.TensorStore, index: int) -> None:
    parameter = value.parameter
    tensor = parameter.values(value.source, index)
    lead = (index,) if parameter.stacked else ()
    chunk = chunk_shape(parameter)[len(lead) :]
    for where in blocks(tensor.shape, chunk, parameter.dtype.itemsize):
        block = contiguous(tensor[where], parameter.dtype)
        array[(*lead, *where)].write(block, can_reference_source_data_indefinitely=True).result()
        value.report(block.nbytes)
    value.source.release(parameter.keys[index])


def blocks(
    shape: tuple[int, ...], chunk: tuple[int, ...], itemsize: int
) -> Iterator[tuple[slice, ...]]:
    """Cut an array into boxes of whole chunks, of at most `BLOCK` bytes if chunks allow."""
    step = list(chunk)
    for axis in reversed(range(len(shape))):
        room = max(1, BLOCK // (int(np.prod(step)) * itemsize))
        step[axis] = min(shape[axis], step[axis] * room)
    starts = [range(0, length, size) for length, size in zip(shape, step, strict=True)]
    for corner in product(*starts):
        yield tuple(
            slice(start, min(start + size, length))
            for start, size, length in zip(corner, step, shape, strict=True)
        )


def contiguous(view: Shaped[np.ndarray, "..."], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
    """A contiguous copy of a view in another dtype (rounded to nearest even).

    A transposed view is copied in strips of a few columns, which the processor's cache holds;
    NumPy's own order misses it at every element.
    """
    if view.ndim != 2 or view.flags.c_contiguous:
        return np.ascontiguousarray(view.astype(dtype, copy=False))
    out = np.empty(view.shape, dtype)
    if view.dtype == dtype:  # whole numbers are copied faster than bfloat16
        bits = np.dtype(f"u{dtype.itemsize}")
        source, target = view.view(bits), out.view(bits)
    else:
        source, target = view, out
    for start in range(0, view.shape[1], STRIP):
        target[:, start : start + STRIP] = source[:, start : start + STRIP]
    return out
