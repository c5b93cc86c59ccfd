"""LoRA's updates as an adapter in PEFT's layout, which `flowjax convert --adapter` reads."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped
from safetensors.flax import save_file

from flowjax.errors import FlowjaxError
from flowjax.models.video_llm import VideoLLMConfig
from flowjax_convert.adapter import WEIGHTS
from flowjax_convert.adapter_config import ADAPTER_CONFIG
from flowjax_convert.mapping import LAYER, table_of

Update = tuple[Shaped[np.ndarray, "layers inputs rank"], Shaped[np.ndarray, "layers rank outputs"]]
"""`lora_a` and `lora_b` of the layers."""


def write_adapter(
    folder: Path,
    config: VideoLLMConfig,
    fields: Mapping[str, Any],
    updates: Mapping[str, Update],
    *,
    alpha: float,
    base: str,
) -> None:
    """Write `adapter_config.json` and the weights into a folder, which is made.

    Args:
        folder: to write into.
        config: of the base model.
        fields: of its `config.json`.
        updates: by the name of the decoder's linear layer.
        alpha: `alpha / rank` is what their product is multiplied by.
        base: the base model as its user named it.

    Raises:
        FlowjaxError: the checkpoint has one tensor for several of these layers, of which an adapter
            cannot change one alone.
    """
    modules = modules_of(config, fields, updates)
    tensors = {}
    for name, (down, up) in updates.items():
        for layer in range(len(down)):
            key = f"base_model.model.{modules[name].replace(LAYER, str(layer))}"
            tensors[f"{key}.lora_A.weight"] = jnp.asarray(np.ascontiguousarray(down[layer].T))
            tensors[f"{key}.lora_B.weight"] = jnp.asarray(np.ascontiguousarray(up[layer].T))
    patterns = (re.escape(module).replace(re.escape(LAYER), r"\d+") for module in modules.values())
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": next(iter(updates.values()))[0].shape[-1],
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": "|".join(patterns),
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    text = json.dumps(settings, indent=2)
    (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")


def modules_of(
    config: VideoLLMConfig, fields: Mapping[str, Any], names: Collection[str]
) -> dict[str, str]:
    """The checkpoint's modules of some of the decoder's linear layers, with `{layer}`.

    Raises:
        FlowjaxError: see `write_adapter`.
    """
    rules = {rule.target: rule for rule in table_of(config, fields).rules}
    modules = {}
    for name in names:
        rule = rules[f"decoder/layers/{name}/kernel"]
        if rule.rows is not None:
            raise FlowjaxError(
                f"the checkpoint has {name} in one tensor with others ({rule.source}), so that no "
                "adapter in PEFT's layout can hold its update; use the merged model"
            )
        modules[name] = rule.source.removesuffix(".weight")
    return modules
