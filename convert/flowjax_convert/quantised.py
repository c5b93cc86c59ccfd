"""Quantised checkpoints, which are refused as what they are."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from flowjax.errors import FlowjaxError

FIELDS = ("quantization_config", "compression_config", "quantization")
"""Where the libraries that quantise say so: in `config.json` or in one of its parts."""

KEYS = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|SCB|weight_format|absmax|quant_map|nested_absmax"
    r"|weight_scale|weight_scale_inv|input_scale|activation_scale|weight_packed|weight_shape"
    r"|weight_zero_point|weight_g_idx|quant_state\.[\w.]+|weight\.(absmax|quant_map|quant_state\.[\w.]+"
    r"|nested_absmax|nested_quant_map))$"
)
"""Ends of keys that AWQ, GPTQ, bitsandbytes, fp8 and compressed-tensors write beside weights."""

WHAT_TO_DO = (
    "flowjax reads weights as they were trained, in float32, float16 or bfloat16; convert the "
    "checkpoint that it was made from, or undo it with transformers: "
    "model.dequantize().save_pretrained(DIR)"
)


def check_not_quantised(fields: Mapping[str, Any], source: str) -> None:
    """Refuse a configuration that says how the weights are quantised.

    Raises:
        FlowjaxError: names the field, the method and what to do.
    """
    parts = {"": fields} | {
        f"{name}.": value for name, value in fields.items() if isinstance(value, Mapping)
    }
    for part, inner in parts.items():
        for name in FIELDS:
            if inner.get(name) is not None:
                raise FlowjaxError(
                    f"{source}: {part}{name}: the weights are quantised ({_method(inner[name])}); "
                    f"{WHAT_TO_DO}"
                )


def check_plain_keys(keys: Iterable[str], source: str) -> None:
    """Refuse a checkpoint with tensors of quantised weights, whatever its configuration says.

    Raises:
        FlowjaxError: names a key and what to do.
    """
    for key in keys:
        if KEYS.search(key):
            raise FlowjaxError(f"{source}: key {key}: the weights are quantised; {WHAT_TO_DO}")


def _method(value: object) -> str:
    """The method's name as its library writes it."""
    if not isinstance(value, Mapping):
        return str(value)
    for bits in ("4bit", "8bit"):
        if value.get(f"load_in_{bits}"):
            return f"bitsandbytes, {bits[0]} bits"
    method = value.get("quant_method", value.get("quant_type", "an unnamed method"))
    bits = value.get("bits", value.get("w_bit"))
    return f"{method}" if bits is None else f"{method}, {bits} bits"
