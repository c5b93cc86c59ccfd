"""Random checkpoints in Hugging Face's PLLaVA layout, of any size."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Fields = Mapping[str, Any]
BITS = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32}
EXPONENT = {"BF16": (0x3C00, 7), "F16": (0x2400, 10), "F32": (0x3C000000, 23)}
"""Bits of a number near 0.01, and where the exponent starts."""


def pllava_shapes(config: Fields) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor that a PLLaVA checkpoint with this `config.json` holds, by key."""
    text, vision = config["text_config"], config["vision_config"]
    width, mlp = text["hidden_size"], text["intermediate_size"]
    head = width // text["num_attention_heads"]
    kv = head * text.get("num_key_value_heads", text["num_attention_heads"])
    shapes: dict[str, tuple[int, ...]] = {}
    shapes["language_model.model.embed_tokens.weight"] = (text["vocab_size"], width)
    for layer in range(text["num_hidden_layers"]):
        prefix = f"language_model.model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (width,),
            prefix + "self_attn.q_proj.weight": (width, width),
            prefix + "self_attn.k_proj.weight": (kv, width),
            prefix + "self_attn.v_proj.weight": (kv, width),
            prefix + "self_attn.o_proj.weight": (width, width),
            prefix + "post_attention_layernorm.weight": (width,),
            prefix + "mlp.gate_proj.weight": (mlp, width),
            prefix + "mlp.up_proj.weight": (mlp, width),
            prefix + "mlp.down_proj.weight": (width, mlp),
        }
    shapes["language_model.model.norm.weight"] = (width,)
    if not text.get("tie_word_embeddings", False):
        shapes["language_model.lm_head.weight"] = (text["vocab_size"], width)
    clip, clip_mlp = vision["hidden_size"], vision["intermediate_size"]
    prefix = "vision_tower.vision_model."
    patch, grid = vision["patch_size"], vision["image_size"] // vision["patch_size"]
    shapes |= {
        prefix + "embeddings.class_embedding": (clip,),
        prefix + "embeddings.patch_embedding.weight": (clip, 3, patch, patch),
        prefix + "embeddings.position_embedding.weight": (1 + grid**2, clip),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes |= {prefix + norm + ".weight": (clip,), prefix + norm + ".bias": (clip,)}
    for layer in range(vision["num_hidden_layers"]):
        block = f"{prefix}encoder.layers.{layer}."
        linear = {f"self_attn.{x}_proj": (clip, clip) for x in ("q", "k", "v", "out")}
        linear |= {"mlp.fc1": (clip_mlp, clip), "mlp.fc2": (clip, clip_mlp)}
        for name, shape in linear.items():
            shapes |= {block + name + ".weight": shape, block + name + ".bias": shape[:1]}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {block + norm + ".weight": (clip,), block + norm + ".bias": (clip,)}
    for name, inputs in (("linear_1", clip), ("linear_2", width)):
        shapes[f"multi_modal_projector.{name}.weight"] = (width, inputs)
        shapes[f"multi_modal_projector.{name}.bias"] = (width,)
    return shapes


def random_bits(
    shape: Sequence[int], dtype: str, rng: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.unsignedinteger]]:
    """Finite numbers of both signs near 0.01 as their bits, in a safetensors dtype."""
    bits, (base, exponent) = BITS[dtype], EXPONENT[dtype]
    top = np.iinfo(bits).bits - 1
    noise = rng.integers(0, np.iinfo(bits).max, shape, bits, endpoint=True)
    mantissa, sign = (1 << exponent) - 1, 1 << top
    return (noise & bits(mantissa | sign)) | bits(base)


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, rng: np.random.Generator
) -> None:
    """Write a file of random tensors, one tensor in memory at a time."""
    header, offset = {}, 0
    itemsize = np.dtype(BITS[dtype]).itemsize
    for key, shape in shapes.items():
        size = math.prod(shape) * itemsize
        offsets = [offset, offset + size]
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            file.write(random_bits(shape, dtype, rng).tobytes())


def write_checkpoint(
    path: Path,
    config: Fields,
    *,
    side_files: Path,
    dtype: str = "F32",
    shards: int = 1,
    seed: int = 0,
) -> None:
    """Write a random checkpoint.

    Args:
        path: directory to create.
        config: fields of its `config.json`.
        side_files: a directory whose tokenizer and preprocessing files are copied.
        dtype: of all tensors, as safetensors names it.
        shards: number of files; with more than one, an index is written.
        seed: of the random numbers.
    """
    path.mkdir(parents=True)
    for file in side_files.iterdir():
        if file.suffix == ".json" and ("token" in file.name or "processor" in file.name):
            shutil.copyfile(file, path / file.name)
    (path / "config.json").write_text(json.dumps(config, indent=2))
    rng = np.random.default_rng(seed)
    shapes = pllava_shapes(config)
    if shards == 1:
        write_safetensors(path / "model.safetensors", shapes, dtype, rng)
        return
    total, done = sum(math.prod(shape) for shape in shapes.values()), 0
    parts: list[dict[str, tuple[int, ...]]] = [{} for _ in range(shards)]
    for key, shape in shapes.items():
        parts[min(shards - 1, done * shards // total)][key] = shape
        done += math.prod(shape)
    weights = {}
    for index, part in enumerate(parts):
        name = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(path / name, part, dtype, rng)
        weights |= dict.fromkeys(part, name)
    (path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weights})
    )
