"""What an adapter's `adapter_config.json` says of how PEFT merges it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.hf_config import HFConfig, Unread

ADAPTER_CONFIG = "adapter_config.json"

OFF = (
    "fan_in_fan_out", "use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save",
    "trainable_token_indices", "target_parameters", "layer_replication", "alora_invocation_tokens",
    "arrow_config", "kasa_config", "velora_config", "monteclora_config", "lora_ga_config",
    "corda_config", "megatron_config",
)  # fmt: skip
"""Fields that ask for more than a scaled product added to a weight; they must be off."""

UNREAD = (
    Unread(
        (
            "init_lora_weights", "task_type", "auto_mapping", "peft_version", "inference_mode",
            "lora_dropout",
        ),
        "how the adapter was trained and saved",
        "peft.LoraConfig",
    ),
    Unread(
        ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        "which modules have an adapter, which the tensors say themselves",
        "peft.LoraConfig",
    ),
    Unread(
        (
            *OFF, "qalora_group_size", "loftq_config", "eva_config", "runtime_config",
            "megatron_core", "ensure_weight_tying",
        ),
        "settings of what is off, of starting values, and of other libraries",
        "peft.LoraConfig",
    ),
)  # fmt: skip

STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base model's own weights as they are."""

MODULE = re.compile(r"\^?[\w.]+")
"""Patterns of `rank_pattern` and `alpha_pattern` that are names, not regular expressions."""


@dataclass(frozen=True)
class AdapterConfig:
    """Rank and scaling of every module's adapter.

    rank, alpha: of modules that no pattern names.
    ranks, alphas: by pattern: a module's full name or its last parts.
    rank_stabilised: whether the scaling is alpha / sqrt(rank) instead of alpha / rank
        (Kalajdzievski 2023, arXiv 2312.03732).
    base: the base model as its user named it, or nothing.
    revision: of the base model on the hub, or None.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rank_stabilised: bool
    base: str
    revision: str | None

    def rank_of(self, module: str) -> int:
        """The rank of the adapter of a module, named as in the base model."""
        return self.ranks.get(_matching(self.ranks, module), self.rank)

    def scaling(self, module: str) -> float:
        """What the product of the adapter's two matrices is multiplied by."""
        rank = self.rank_of(module)
        alpha = self.alphas.get(_matching(self.alphas, module), self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def read_adapter_config(directory: Path) -> AdapterConfig:
    """Read `adapter_config.json`.

    Raises:
        FlowjaxError: not a plain LoRA adapter; names the field.
    """
    path = directory / ADAPTER_CONFIG
    fields = HFConfig(read_json(path), f"{path}: ")
    kind = fields.take("peft_type", str)
    if kind != "LORA":
        raise FlowjaxError(f"{fields.name('peft_type')} is {kind!r}; only 'LORA' is supported")
    for name in OFF:
        value = fields.peek(name)
        if value not in (None, False, [], {}):
            raise FlowjaxError(f"{fields.name(name)} is {value!r}; adapters with it are not merged")
    fields.expect("bias", "none")
    start = fields.peek("init_lora_weights")
    if not any(start is value for value in STARTS[:3]) and start not in STARTS[3:]:
        raise FlowjaxError(
            f"{fields.name('init_lora_weights')} is {start!r}: the base model's weights were "
            "changed before training; convert the adapter to a plain one with PEFT "
            "(save_pretrained with path_initial_model_for_weight_conversion)"
        )
    config = AdapterConfig(
        rank=fields.positive("r", 8),
        alpha=fields.positive_float("lora_alpha", 8.0),
        ranks={
            name: patterns.positive(name) for name, patterns in _patterns(fields, "rank_pattern")
        },
        alphas={
            name: patterns.positive_float(name, 0.0)
            for name, patterns in _patterns(fields, "alpha_pattern")
        },
        rank_stabilised=fields.take("use_rslora", bool, False),
        base=fields.take("base_model_name_or_path", str, ""),
        revision=fields.take("revision", str, "") or None,
    )
    fields.finish(*UNREAD)
    return config


def _patterns(fields: HFConfig, field: str) -> list[tuple[str, HFConfig]]:
    """Names in a mapping from patterns to numbers, each with the mapping as a configuration."""
    patterns = fields.take(field, dict, {})
    for pattern in patterns:
        if not MODULE.fullmatch(pattern):
            raise FlowjaxError(
                f"{fields.name(field)} has {pattern!r}; only names of modules are supported"
            )
    return [(name, HFConfig(patterns, f"{fields.name(field)}.")) for name in patterns]


def _matching(patterns: Mapping[str, object], module: str) -> str:
    """The first pattern that is the module's name or its last parts; nothing if none is."""
    for pattern in patterns:
        name = pattern.removeprefix("^")
        if module == name or (name == pattern and module.endswith(f".{name}")):
            return pattern
    return ""
