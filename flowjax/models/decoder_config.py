"""Reading the decoders' part of Hugging Face configurations, shared by the families.

Absent fields have the defaults of `transformers`. Each reader refuses by name what the decoder of
`flowjax.models.decoder` does not compute.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.decoder import DecoderConfig
from flowjax.models.rope_config import known_positions, read_rope


@dataclass(frozen=True)
class Defaults:
    """What one architecture's configuration class assumes; None follows from other fields."""

    vocabulary: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int | None
    head_dim: int | None
    norm_eps: float
    positions: int
    original_positions: int | None = None


QWEN_UNREAD = (
    Unread(
        ("sliding_window", "max_window_layers"),
        "width and first layer of a window that is off",
        "transformers.Qwen2Config and Qwen3Config: sliding_window is None unless "
        "use_sliding_window",
        when=("use_sliding_window", False),
    ),
    Unread(
        ("use_mrope",),
        "the rotary embedding of Qwen2.5's language models, which have no images",
        "config.json of Qwen/Qwen2.5-7B-Instruct; no class of transformers reads it",
        at=False,
    ),
)
"""Of Qwen2 and Qwen3."""

LLAMA = Defaults(32000, 4096, 11008, 32, 32, None, None, 1e-6, 2048)
QWEN2 = Defaults(151936, 4096, 22016, 32, 32, 32, None, 1e-6, 32768)
QWEN3 = Defaults(151936, 4096, 22016, 32, 32, 32, 128, 1e-6, 32768)
INTERNLM2_UNREAD = (
    Unread(
        ("rope_pos_id_stride",),
        "step between positions of a video's tokens, which is off",
        "InternVL's release: modeling_internlm2.py reads it with V2PE only",
        when=("rope_pos_id_version", "default"),
    ),
)

INTERNLM2 = Defaults(103168, 4096, 11008, 32, 32, None, None, 1e-6, 2048)
MISTRAL = Defaults(32000, 4096, 14336, 32, 32, 8, None, 1e-6, 131072)
PHI3 = Defaults(32064, 3072, 8192, 32, 32, None, None, 1e-5, 4096, 4096)

MISTRAL_WINDOW = 4096
"""Positions of the window where the configuration says nothing of it."""


def read_llama(text: HFConfig, vocabulary: int = 0) -> DecoderConfig:
    """Read a Llama configuration; `vocabulary` is the model's own row count, 0 if it says none.

    Raises:
        FlowjaxError: names the field that is missing, unknown or not supported.
    """
    text.expect("model_type", "llama")
    text.expect("attention_bias", False)
    text.expect("mlp_bias", False)
    return _read(text, vocabulary, LLAMA, qkv_bias=False, qk_norm=False)


def read_qwen2(text: HFConfig, vocabulary: int = 0) -> DecoderConfig:
    """Read a Qwen2 or Qwen2.5 configuration: biases on query, key and value.

    See `read_llama`.
    """
    text.expect("model_type", "qwen2")
    text.expect("use_sliding_window", False)
    return _read(text, vocabulary, QWEN2, QWEN_UNREAD, qkv_bias=True, qk_norm=False)


def read_qwen3(text: HFConfig, vocabulary: int = 0) -> DecoderConfig:
    """Read a Qwen3 configuration: norms on every head of query and key, no biases.

    See `read_llama`.
    """
    text.expect("model_type", "qwen3")
    text.expect("attention_bias", False)
    text.expect("use_sliding_window", False)
    return _read(text, vocabulary, QWEN3, QWEN_UNREAD, qkv_bias=False, qk_norm=True)


def read_phi3(text: HFConfig, vocabulary: int = 0) -> DecoderConfig:
    """Read a Phi-3 configuration. A sliding window must be too wide to bind at any length.

    See `read_llama`.
    """
    text.expect("model_type", "phi3")
    text.expect("attention_bias", False)
    positions = text.positive("max_position_embeddings", PHI3.positions)
    window = text.positive("sliding_window", positions)
    if window < positions:
        raise FlowjaxError(
            f"{text.name('sliding_window')} is {window}; it must be null or at least "
            f"max_position_embeddings, {positions}: every position attends to all earlier ones here"
        )
    defaults = dataclasses.replace(PHI3, positions=positions)
    return _read(text, vocabulary, defaults, qkv_bias=False, qk_norm=False)


def read_internlm2(text: HFConfig, vocabulary: int = 0) -> DecoderConfig:
    """Read an InternLM2 configuration: a Llama, whose linear layers may have biases.

    See `read_llama`.
    """
    text.expect("model_type", "internlm2")
    if text.take("bias", bool, True):
        raise FlowjaxError(
            f"{text.name('bias')} is true, or absent, which is as good; only false is supported"
        )
    text.expect("rope_pos_id_version", "default")
    return _read(text, vocabulary, INTERNLM2, INTERNLM2_UNREAD, qkv_bias=False, qk_norm=False)


def read_mistral(text: HFConfig, vocabulary: int = 0) -> DecoderConfig:
    """Read a Mistral configuration: a Llama in which every layer reads within a sliding window.

    Without `sliding_window` the window has 4096 positions; if it is null, there is none. See
    `read_llama`.
    """
    text.expect("model_type", "mistral")
    text.expect("attention_bias", False)
    none = text.is_null("sliding_window")
    window = text.positive("sliding_window", MISTRAL_WINDOW)
    return _read(
        text, vocabulary, MISTRAL, qkv_bias=False, qk_norm=False, window=None if none else window
    )


READERS: Mapping[str, Callable[[HFConfig, int], DecoderConfig]] = {
    "internlm2": read_internlm2,
    "llama": read_llama,
    "mistral": read_mistral,
    "phi3": read_phi3,
    "qwen2": read_qwen2,
    "qwen3": read_qwen3,
}
"""Readers by `model_type`."""


def read_decoder(
    text: HFConfig,
    vocabulary: int = 0,
    *,
    among: tuple[str, ...] = tuple(READERS),
    absent: str | None = None,
) -> DecoderConfig:
    """Read the configuration of a decoder by its `model_type`, which must be one of `among`.

    See `read_llama`. `absent`: the decoder where no `model_type` says it.
    """
    name = text.peek("model_type") or absent
    if name not in among:
        raise FlowjaxError(
            f"{text.name('model_type')} is {name!r}; the decoders are {', '.join(among)}"
        )
    return READERS[name](text, vocabulary)


def decoder_kind(text: HFConfig, absent: str) -> str:
    """The `model_type` of a decoder's configuration, or that of the family where it says none."""
    return text.peek("model_type") or absent


def _read(
    text: HFConfig,
    vocabulary: int,
    defaults: Defaults,
    unread: tuple[Unread, ...] = (),
    *,
    qkv_bias: bool,
    qk_norm: bool,
    window: int | None = None,
) -> DecoderConfig:
    text.expect("hidden_act", "silu")
    width = text.positive("hidden_size", defaults.width)
    heads = text.positive("num_attention_heads", defaults.heads)
    layers = text.positive("num_hidden_layers", defaults.layers)
    text.expect("layer_types", ["full_attention"] * layers)
    rows = text.positive("vocab_size", vocabulary or defaults.vocabulary)
    if vocabulary and rows != vocabulary:
        raise FlowjaxError(f"{text.name('vocab_size')} is {rows}, but vocab_size is {vocabulary}")
    # Where null is not the same as absent: Qwen2Config and Qwen3Config.
    absent = heads if text.is_null("num_key_value_heads") else defaults.kv_heads or heads
    kv_heads = text.positive("num_key_value_heads", absent)
    if heads % kv_heads:
        raise FlowjaxError(
            f"{text.name('num_key_value_heads')} is {kv_heads}; it must divide "
            f"num_attention_heads, {heads}"
        )
    head_dim = text.positive("head_dim", _head_dim(text, width, heads, defaults))
    if head_dim % 2:
        raise FlowjaxError(
            f"{text.name('head_dim')} is {head_dim}; rotary embedding needs it to be even"
        )
    positions = text.positive("max_position_embeddings", defaults.positions)
    known = known_positions(text, positions)
    config = DecoderConfig(
        vocabulary=rows,
        width=width,
        mlp_width=text.positive("intermediate_size", defaults.mlp_width),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=text.positive_float("rms_norm_eps", defaults.norm_eps),
        rope=read_rope(text, head_dim, positions, defaults.original_positions),
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        tied_embeddings=text.take("tie_word_embeddings", bool, False),
        window=window,
        positions=known,
    )
    text.finish(*unread)
    return config


def _head_dim(text: HFConfig, width: int, heads: int, defaults: Defaults) -> int:
    """Width of a head where the configuration gives none."""
    null = text.is_null("head_dim")
    if "head_dim" not in text and not null and defaults.head_dim is not None:
        return defaults.head_dim
    if width % heads and "head_dim" not in text:
        raise FlowjaxError(
            f"{text.name('hidden_size')} is {width}; it must be a multiple of "
            f"num_attention_heads, {heads}"
        )
    return width // heads
