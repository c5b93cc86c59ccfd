"""Checking that every file of stored arrays is there and whole, without reading any.

Arrays are in the Zarr 2 format (https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html): a
directory with `.zarray` and one file per chunk, uncompressed when flowjax has written them.
"""

import math
import os
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import jax.numpy as jnp

from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.paths import is_remote

METADATA, OCDBT = ".zarray", "manifest.ocdbt"


def check_array_files(path: Path, parameters: Iterable[str]) -> None:
    """Check the arrays of an Orbax checkpoint, which would read a missing file late or not at all.

    Args:
        path: the checkpoint; nothing is checked if it keeps its arrays in one database (OCDBT).
        parameters: paths of all its parameters.

    Raises:
        FlowjaxError: names a file that is missing or not of the size that its array's metadata
            asks for.
    """
    if not path.is_dir():
        raise FlowjaxError(f"{path} is missing; convert the model again")
    if (path / OCDBT).exists():
        return
    for parameter in parameters:
        _check_array(path / parameter.replace("/", "."))


def _check_array(directory: Path) -> None:
    fields = read_json(directory / METADATA)
    try:
        if fields["compressor"] is not None:
            return
        shape, chunks, separator = fields["shape"], fields["chunks"], fields["dimension_separator"]
        size = math.prod(chunks) * jnp.dtype(fields["dtype"]).itemsize
        grid = [range(-(-n // chunk)) for n, chunk in zip(shape, chunks, strict=True)]
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise FlowjaxError(f"{directory / METADATA}: not the metadata of an array") from error
    if is_remote(directory):  # an object is whole; to ask each for its size takes long
        found = dict.fromkeys((entry.name for entry in directory.iterdir()), size)
    else:
        found = {entry.name: entry.stat().st_size for entry in os.scandir(directory)}
    for index in product(*grid):
        name = separator.join(map(str, index)) or "0"
        if name not in found:
            raise FlowjaxError(f"{directory / name} is missing; convert the model again")
        if found[name] != size:
            raise FlowjaxError(
                f"{directory / name} has {found[name]} bytes, not {size}; convert the model again"
            )
