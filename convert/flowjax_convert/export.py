"""Parameters as a Hugging Face checkpoint."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.flax import save_file

from flowjax.errors import FlowjaxError
from flowjax.files import read_json, utf8_name, writing
from flowjax.folders import is_free, new_directory
from flowjax.models.array_files import check_array_files
from flowjax.models.checkpoint import (
    CONFIG,
    EMBEDDING,
    MANIFEST,
    PARAMETERS,
    check_parameters,
    read_manifest,
    stored_parameters,
)
from flowjax.models.registry import families
from flowjax.models.video_llm import VideoLLM
from flowjax.paths import files_under
from flowjax.progress import BYTES, progress_bar
from flowjax.version import __version__
from flowjax_convert.inverse import Inverse, Tensor, Written
from flowjax_convert.mapping import table_of
from flowjax_convert.output import check_space
from flowjax_convert.source import INDEX, open_source
from flowjax_convert.verify import open_parameter

WEIGHTS = "model.safetensors"
SHARD = 5 * 10**9
"""Bytes of a file at most, unless one tensor has more; they are in memory at a time."""


def export_tensors(model: VideoLLM, fields: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor of the checkpoint that `convert` reads as this model, by its key.

    Args:
        model: with parameters.
        fields: of its `config.json`.

    Raises:
        FlowjaxError: see `Inverse.tensors`.
    """
    leaves, _ = jax.tree.flatten_with_path(nnx.to_pure_dict(nnx.state(model)))
    arrays = {"/".join(str(entry.key) for entry in path): np.asarray(leaf) for path, leaf in leaves}
    inverse = Inverse(
        table_of(model.config, fields),
        model.config,
        {path: leaf.shape for path, leaf in arrays.items()},
        arrays[EMBEDDING].dtype,
        {path: leaf.itemsize for path, leaf in arrays.items()},
    )

    def part(path: str, layer: int | None) -> Tensor:
        return arrays[path] if layer is None else arrays[path][layer]

    return {one.key: one.make() for one in inverse.tensors(part)}


def export_checkpoint(model: VideoLLM, fields: Mapping[str, Any], folder: Path) -> None:
    """Write `config.json` and the weights, in the parameters' dtype, into an existing folder."""
    text = json.dumps(dict(fields), indent=1)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    _save(export_tensors(model, fields), folder / WEIGHTS)


def export(path: Path, out: Path, *, like: Path | None = None, overwrite: bool = False) -> int:
    """Write a converted model as a checkpoint in Hugging Face format; `convert` reads it back.

    A parameter is read when its tensor is written, so that a file's tensors are in memory at most.

    Args:
        path: the model.
        out: the folder, which appears complete or not at all.
        like: the checkpoint that the model was made from: its keys' spelling, and what it has
            that the model does not hold.
        overwrite: whether an earlier export at `out` may be replaced.

    Returns:
        The number of tensors.

    Raises:
        FlowjaxError: one of the folders does not serve, or the family's table cannot be read
            backwards.
    """
    manifest = read_manifest(path)
    fields = read_json(path / CONFIG)
    config = families()[manifest.family].read_config(fields, str(path / CONFIG))
    check_array_files(path / PARAMETERS, manifest.dtype)
    stored = stored_parameters(path / PARAMETERS)
    shapes = {name: tuple(leaf.shape) for name, leaf in stored.items()}
    check_parameters(path / PARAMETERS, shapes, config)
    _check_out(out, overwrite=overwrite)
    inverse = Inverse(
        table_of(config, fields),
        config,
        shapes,
        np.dtype(stored[EMBEDDING].dtype),
        {name: np.dtype(leaf.dtype).itemsize for name, leaf in stored.items()},
        None if like is None else open_source(like),
    )
    with utf8_name(path) as named:

        def part(name: str, layer: int | None) -> Tensor:
            array = open_parameter(named / PARAMETERS, name)
            return (array if layer is None else array[layer]).read().result()

        tensors = list(inverse.tensors(part))
        total = sum(one.bytes for one in tensors)
        check_space(out, total)
        with (
            writing(out),
            new_directory(out, CONFIG) as partial,
            progress_bar(f"exporting {manifest.name}", total, columns=BYTES) as advance,
        ):
            _copy_side_files(path, partial)
            shards = _shards(tensors)
            names, where = _names(len(shards)), {}
            for name, shard in zip(names, shards, strict=True):
                _save({one.key: one.make() for one in shard}, partial / name)
                where |= {one.key: name for one in shard}
                advance(sum(one.bytes for one in shard))
            if len(shards) > 1:
                index = {"metadata": {"total_size": total}, "weight_map": where}
                text = json.dumps(index, indent=1)
                (partial / INDEX).write_text(text + "\n", encoding="utf-8")
    return len(tensors)


def _check_out(out: Path, *, overwrite: bool) -> None:
    with writing(out):
        free = is_free(out)
    if free:
        return
    if not overwrite:
        raise FlowjaxError(f"{out} already exists; give --overwrite to replace it")
    exported = out.is_dir() and not (out / MANIFEST).exists() and (out / CONFIG).is_file()
    if not exported or _written_by(out) is None:
        raise FlowjaxError(
            f"{out} was not written by `flowjax export`, so --overwrite does not replace it; "
            "remove it first"
        )


MARK = "flowjax_export.json"
"""In every exported folder: which version wrote it."""


def _written_by(out: Path) -> str | None:
    return read_json(out / MARK).get("version") if (out / MARK).is_file() else None


def _copy_side_files(path: Path, out: Path) -> None:
    for file in files_under(path):
        within = file.relative_to(path)
        if within.parts[0] not in (PARAMETERS, MANIFEST):
            (out / within).parent.mkdir(parents=True, exist_ok=True)
            (out / within).write_bytes(file.read_bytes())
    (out / MARK).write_text(json.dumps({"version": __version__}) + "\n", encoding="utf-8")


def _shards(tensors: Iterable[Written]) -> list[list[Written]]:
    """Tensors in files of at most `SHARD` bytes."""
    shards: list[list[Written]] = [[]]
    size = 0
    for one in tensors:
        if shards[-1] and size + one.bytes > SHARD:
            shards.append([])
            size = 0
        shards[-1].append(one)
        size += one.bytes
    return shards


def _names(count: int) -> list[str]:
    if count == 1:
        return [WEIGHTS]
    return [f"model-{index:05}-of-{count:05}.safetensors" for index in range(1, count + 1)]


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    contiguous = {name: jnp.asarray(np.ascontiguousarray(t)) for name, t in tensors.items()}
    save_file(contiguous, path, {"format": "pt"})
