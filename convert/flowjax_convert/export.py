"""Parameters as a Hugging Face checkpoint: a family's tensor table, read backwards."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Shaped
from safetensors.flax import save_file

from flowjax.errors import FlowjaxError
from flowjax.models.video_llm import VideoLLM
from flowjax_convert.mapping import LAYER, Ignored, Rule, as_is, patches, table_of, transposed

WEIGHTS = "model.safetensors"

Tensor = Shaped[np.ndarray, "..."]


def export_tensors(model: VideoLLM, fields: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor of the checkpoint that `convert` reads as this model, by its key.

    Tensors that a checkpoint must have and no computation reads are ones (weights) and zeros.

    Args:
        model: with parameters.
        fields: of its `config.json`.

    Raises:
        FlowjaxError: the checkpoint needs a tensor that the model does not hold: of layers after
            the feature layer, or one that several parameters share.
    """
    table = table_of(model.config, fields)
    state = nnx.to_pure_dict(nnx.state(model))
    parameters = {
        "/".join(str(entry.key) for entry in path): np.asarray(leaf)
        for path, leaf in jax.tree.flatten_with_path(state)[0]
    }
    tensors: dict[str, Tensor] = {}
    for rule in table.rules:
        parameter, back = parameters[rule.target], _inverse(rule, fields)
        if rule.layers is not None and rule.layers > len(parameter):
            raise FlowjaxError(
                f"{rule.source} has {rule.layers} layers in the checkpoint, of which the model "
                f"holds {len(parameter)}; only whole models can be written"
            )
        if LAYER in rule.source:
            for index, part in enumerate(parameter):
                tensors[rule.source.replace(LAYER, str(index))] = back(part)
        else:
            tensors[rule.source] = back(parameter)
    some = next(iter(tensors.values())).dtype
    for unread in table.ignored:
        if unread.required:
            tensors[unread.source] = _unread(unread).astype(some)
    return tensors


def export_checkpoint(model: VideoLLM, fields: Mapping[str, Any], folder: Path) -> None:
    """Write `config.json` and the weights, in the parameters' dtype, into an existing folder."""
    tensors = export_tensors(model, fields)
    text = json.dumps(dict(fields), indent=1)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    contiguous = {name: jnp.asarray(np.ascontiguousarray(t)) for name, t in tensors.items()}
    save_file(contiguous, folder / WEIGHTS, {"format": "pt"})


def _inverse(rule: Rule, fields: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    if rule.rows is None and rule.arrange is as_is:
        return as_is
    if rule.rows is None and rule.arrange is transposed:
        return transposed
    if rule.rows is None and rule.arrange is patches:
        side = fields["vision_config"]["patch_size"]
        return lambda kernel: kernel.T.reshape(kernel.shape[1], -1, side, side)
    raise FlowjaxError(f"{rule.source} cannot be written back from {rule.target}")


def _unread(unread: Ignored) -> Tensor:
    assert unread.shape is not None
    value = 1.0 if unread.source.endswith(".weight") else 0.0
    return np.full(unread.shape, value, np.float32)
