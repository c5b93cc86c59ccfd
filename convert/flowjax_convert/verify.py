"""Comparing a converted model with the checkpoint that it was made from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorstore as ts
from jaxtyping import Shaped

from flowjax.errors import FlowjaxError
from flowjax.files import read_json, utf8_name
from flowjax.models.checkpoint import (
    CONFIG,
    MANIFEST,
    PARAMETERS,
    TOKENIZER,
    check_parameters,
    parameters_digest,
    read_manifest,
    stored_parameters,
)
from flowjax.paths import kvstore
from flowjax_convert.plan import Parameter
from flowjax_convert.run import DTYPES, SIDE_FILES, Checkpoint, read_checkpoint, resolve
from flowjax_convert.writer import blocks, chunk_shape, contiguous


@dataclass(frozen=True)
class TensorResult:
    """Whether one tensor of the checkpoint is in the model.

    key: of the checkpoint.
    parameter: path of the parameter that it fills, or its layer's part of it.
    difference: what differs; empty where every bit is equal (after the cast that `--dtype` asked
        for, if any).
    """

    key: str
    parameter: str
    difference: str


@dataclass(frozen=True)
class VerifyReport:
    """The comparison of a model with its checkpoint.

    tensors: one result for every tensor that fills a parameter.
    files: difference by name, for every side file that differs.
    parameters: number of parameters (scalars) of the model.
    cast: the dtype that all were cast to, None if each kept its own.
    """

    tensors: tuple[TensorResult, ...]
    files: Mapping[str, str]
    parameters: int
    cast: str | None

    @property
    def differences(self) -> tuple[str, ...]:
        """One line for everything that differs; empty if the conversion is right."""
        return (
            *(
                f"{result.key}: {result.difference} (parameter {result.parameter})"
                for result in self.tensors
                if result.difference
            ),
            *(f"{name}: {difference}" for name, difference in self.files.items()),
        )


def verify(src: str | Path, out: str | Path) -> VerifyReport:
    """Read the checkpoint `src` and the model `out` anew and compare all that they hold.

    Raises:
        FlowjaxError: either cannot be read, or their parameters do not correspond.
    """
    out = Path(out)
    manifest = read_manifest(out)
    dtype, pooling = manifest.overrides.get("dtype"), manifest.overrides.get("pooling_shape")
    overrides = manifest.overrides
    model = resolve(src, overrides.get("adapter"), overrides.get("revision"))
    directory = model.directory
    checkpoint = read_checkpoint(
        directory,
        dtype=dtype,
        pooling_shape=None if pooling is None else tuple(pooling),
        vision_attention=overrides.get("vision_attention"),
        prompt=overrides.get("prompt"),
        adapter=model.adapter,
    )
    stored = stored_parameters(out / PARAMETERS)
    check_parameters(
        out / PARAMETERS, {path: leaf.shape for path, leaf in stored.items()}, checkpoint.config
    )
    count = sum(int(np.prod(leaf.shape)) for leaf in stored.values())
    if count != manifest.parameters:
        raise FlowjaxError(
            f"{out / MANIFEST}: parameters is {manifest.parameters}, but there are {count}"
        )
    with utf8_name(out) as named:
        tensors = tuple(
            result
            for parameter in checkpoint.plan.parameters
            for result in _compare(parameter, checkpoint, named / PARAMETERS)
        )
    files = dict(_compare_files(directory, out, checkpoint))
    right = not any(result.difference for result in tensors)
    if right and manifest.digest not in ("", parameters_digest(out / PARAMETERS)):
        files[MANIFEST] = "digest is not that of the parameters"
    return VerifyReport(
        tensors=tensors,
        files=files,
        parameters=count,
        cast=None if dtype is None else DTYPES[dtype].name,
    )


def _compare(parameter: Parameter, checkpoint: Checkpoint, path: Path) -> Iterator[TensorResult]:
    array = open_parameter(path, parameter.path)
    for index, key in enumerate(parameter.keys):
        where = f"{parameter.path}[{index}]" if parameter.stacked else parameter.path
        if array.dtype.numpy_dtype != parameter.dtype:
            found = f"dtype {array.dtype.name}, not {parameter.dtype.name}"
        else:
            found = _difference(parameter, checkpoint, array, index)
        yield TensorResult(key, where, found)


def _difference(
    parameter: Parameter, checkpoint: Checkpoint, array: ts.TensorStore, index: int
) -> str:
    """How many elements of one tensor differ in any bit, in words."""
    tensor = parameter.values(checkpoint.source, index)
    lead = (index,) if parameter.stacked else ()
    chunk = chunk_shape(parameter)[len(lead) :]
    differing = 0
    for where in blocks(tensor.shape, chunk, parameter.dtype.itemsize):
        expected = contiguous(tensor[where], parameter.dtype)
        try:
            found = array[(*lead, *where)].read().result()
        except (OSError, ValueError, RuntimeError) as error:
            return f"not readable: {str(error).splitlines()[0]}"
        differing += int(np.count_nonzero(_bits(found) != _bits(expected)))
    return f"{differing} of {tensor.size} elements differ" if differing else ""


def _bits(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """The values as whole numbers, so that NaN equals itself and -0 is not 0."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def open_parameter(path: Path, parameter: str) -> ts.TensorStore:
    """The stored array of a parameter, for reading; a missing chunk is an error, not zeros."""
    spec = {
        "driver": "zarr",
        "kvstore": kvstore(path / parameter.replace("/", ".")),
        "fill_missing_data_reads": False,
    }
    return ts.open(spec, read=True).result()


def _compare_files(directory: Path, out: Path, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    for name in SIDE_FILES:
        there, here = directory / name, out / name
        if name == TOKENIZER and not checkpoint.tokenizer.stored:
            if not here.is_file() or here.read_text("utf-8") != checkpoint.tokenizer.text:
                yield name, "differs"
        elif there.is_file() != here.is_file():
            yield name, f"missing from {out if there.is_file() else directory}"
        elif name == CONFIG:
            if read_json(here) != checkpoint.fields:
                yield name, "differs"
        elif there.is_file() and there.read_bytes() != here.read_bytes():
            yield name, "differs"
