"""Making and damaging checkpoint directories for the tests of the conversion."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

Entry = dict
"""A header's entry of one tensor: dtype, shape, data_offsets."""


def read_file(path: Path) -> tuple[dict[str, Entry], bytes]:
    """Header and data of a safetensors file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    return header, content[8 + length :]


def write_file(path: Path, tensors: Mapping[str, tuple[str, list[int], bytes]]) -> None:
    """Write dtype, shape and bytes of every tensor."""
    header, data = {}, b""
    for key, (dtype, shape, content) in tensors.items():
        offsets = [len(data), len(data) + len(content)]
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    write_raw(path, json.dumps(header).encode(), data)


def write_raw(path: Path, header: bytes, data: bytes) -> None:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def tensors_of(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Dtype, shape and bytes of every tensor of a file."""
    header, data = read_file(path)
    return {
        key: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
        for key, entry in header.items()
    }


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    """Change the tensors of a file in place."""
    tensors = tensors_of(path)
    change(tensors)
    write_file(path, tensors)


def edit_json(path: Path, change: Callable[[dict], None]) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def light_copy(src: Path, out: Path) -> Path:
    """A copy whose weights are hard links; replace such a file, do not write into it."""
    out.mkdir(parents=True)
    for file in src.iterdir():
        if file.suffix == ".safetensors":
            (out / file.name).hardlink_to(file)
        else:
            shutil.copyfile(file, out / file.name)
    return out


def shard(src: Path, out: Path, parts: int, *, index: bool = True) -> Path:
    """The checkpoint of `src` in several files; keys go to them in turn."""
    out.mkdir(parents=True)
    for file in src.glob("*.json"):
        shutil.copyfile(file, out / file.name)
    tensors = tensors_of(src / "model.safetensors")
    weights = {}
    for part in range(parts):
        name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        keys = list(tensors)[part::parts]
        write_file(out / name, {key: tensors[key] for key in keys})
        weights |= dict.fromkeys(keys, name)
    if index:
        content = {"metadata": {"total_size": 0}, "weight_map": weights}
        (out / "model.safetensors.index.json").write_text(json.dumps(content))
    return out


def numpy_tensors(path: Path) -> dict[str, np.ndarray]:
    """float32 tensors of a file."""
    return {
        key: np.frombuffer(content, np.float32).reshape(shape)
        for key, (_, shape, content) in tensors_of(path).items()
    }
