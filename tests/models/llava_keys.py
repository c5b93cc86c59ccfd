"""How checkpoints of LLaVA's video models may spell their keys, and what must come of them."""

import shutil
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import load_file, save_file

from flowjax.models.checkpoint import load_model
from flowjax_convert.run import convert
from tests.models.parity import Pair

TOWER, INNER = "vision_tower.", "vision_tower.vision_model."


def released(key: str) -> str:
    """As in the files on the hub (`transformers` 4.39 to 4.51), from what version 5 writes."""
    return INNER + key.removeprefix(TOWER) if key.startswith(TOWER) else key


def nested(key: str) -> str:
    """As `transformers` 4.52 to 4.57 writes them."""
    if key.startswith("language_model.lm_head"):
        return key.removeprefix("language_model.")
    if key.startswith("language_model.model."):
        return "model.language_model." + key.removeprefix("language_model.model.")
    return key if key.startswith("model.") else "model." + released(key)


def check_spellings(pair: Pair, folder: Path, **options) -> None:
    """The parameters are the same from every spelling of the keys.

    options: of `convert`.
    """
    plain = load_file(pair.checkpoint / "model.safetensors")
    for spell in (released, nested):
        source = folder / spell.__name__
        shutil.copytree(pair.checkpoint, source)
        tensors = {spell(key): tensor for key, tensor in plain.items()}
        assert tensors.keys() != plain.keys()
        save_file(tensors, source / "model.safetensors", {"format": "pt"})
        check_same_parameters(pair, source, folder / f"{spell.__name__}-model", **options)
    source = folder / "current"
    shutil.copytree(pair.checkpoint, source)
    pair.theirs.save_pretrained(source, save_original_format=False)
    check_same_parameters(pair, source, folder / "current-model", **options)


def check_same_parameters(pair: Pair, source: Path, out: Path, **options) -> None:
    convert(source, out, **options)
    ours, other = (nnx.state(model) for model in (pair.ours.model, load_model(out).model))
    jax.tree.map(np.testing.assert_array_equal, ours, other)
