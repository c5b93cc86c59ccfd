"""Tensor rules of the decoders and of plain layers, shared by the families."""

from collections.abc import Iterator, Mapping

from flowjax.models.decoder import DecoderConfig
from flowjax_convert.mapping import LAYER, Ignored, Rule, Tied, as_is, transposed

BUFFER = "a buffer that follows from the configuration"
PROJECTIONS = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "output",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}


def decoder_rules(
    config: DecoderConfig, model: str = "model.", head: str = "lm_head"
) -> Iterator[Rule]:
    """Rules of a decoder with a tensor per projection: Llama, Qwen2 and Qwen3.

    Args:
        config: says which tensors there are.
        model: what the keys of the embedding, the layers and the final norm begin with.
        head: the vocabulary projection's key without `.weight`.
    """
    yield from _around_layers(config, model, head)
    layer = f"{model}layers.{LAYER}."
    for source, name in PROJECTIONS.items():
        yield Rule(f"{layer}{source}.weight", f"decoder/layers/{name}/kernel", transposed)
    if config.qkv_bias:
        for source, name in list(PROJECTIONS.items())[:3]:
            yield Rule(f"{layer}{source}.bias", f"decoder/layers/{name}/bias")
    if config.qk_norm:
        yield Rule(f"{layer}self_attn.q_norm.weight", "decoder/layers/query_norm/scale")
        yield Rule(f"{layer}self_attn.k_norm.weight", "decoder/layers/key_norm/scale")


def phi3_rules(
    config: DecoderConfig, model: str = "model.", head: str = "lm_head"
) -> Iterator[Rule]:
    """Rules of a Phi-3 decoder, with `qkv_proj` and `gate_up_proj` taken apart by rows.

    See `decoder_rules`.
    """
    yield from _around_layers(config, model, head)
    layer, target = f"{model}layers.{LAYER}.", "decoder/layers"
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    parts = {"query": queries, "key": keys, "value": keys}
    yield from split_linear(f"{layer}self_attn.qkv_proj", target, parts)
    parts = {"gate": config.mlp_width, "up": config.mlp_width}
    yield from split_linear(f"{layer}mlp.gate_up_proj", target, parts)
    for source, name in (("self_attn.o_proj", "output"), ("mlp.down_proj", "down")):
        yield Rule(f"{layer}{source}.weight", f"{target}/{name}/kernel", transposed)


def internlm2_rules(
    config: DecoderConfig, model: str = "model.", head: str = "output"
) -> Iterator[Rule]:
    """Rules of an InternLM2 decoder, a Llama with other names.

    `wqkv` holds, for each head of keys, the queries that read it, its keys and its values. See
    `decoder_rules`.
    """
    yield Rule(f"{model}tok_embeddings.weight", "decoder/embedding/embedding")
    yield Rule(f"{model}norm.weight", "decoder/norm/scale")
    if not config.tied_embeddings:
        yield Rule(f"{head}.weight", "decoder/unembedding/kernel", transposed)
    layer, target = f"{model}layers.{LAYER}.", "decoder/layers"
    yield Rule(f"{layer}attention_norm.weight", f"{target}/attention_norm/scale")
    yield Rule(f"{layer}ffn_norm.weight", f"{target}/mlp_norm/scale")
    queries = config.heads // config.kv_heads * config.head_dim
    parts = {"query": queries, "key": config.head_dim, "value": config.head_dim}
    yield from split_linear(f"{layer}attention.wqkv", target, parts, groups=config.kv_heads)
    for source, name in (
        ("attention.wo", "output"),
        ("feed_forward.w1", "gate"),
        ("feed_forward.w3", "up"),
        ("feed_forward.w2", "down"),
    ):
        yield Rule(f"{layer}{source}.weight", f"{target}/{name}/kernel", transposed)


def split_linear(
    source: str,
    target: str,
    parts: Mapping[str, int],
    *,
    bias: bool = False,
    layers: int | None = None,
    surplus: str = "",
    groups: int = 1,
) -> Iterator[Rule]:
    """Rules of one fused linear layer.

    Args:
        source: its key without `.weight`.
        target: what the paths of its parts begin with.
        parts: names of the parts, each with its number of outputs (of a group), in order.
        bias: whether it has biases.
        layers: see `Rule`.
        surplus: see `Rule`.
        groups: see `Rule`.
    """
    start = 0
    for name, outputs in parts.items():
        rows = (start, start + outputs)
        kernel, biases = f"{target}/{name}/kernel", f"{target}/{name}/bias"
        yield Rule(f"{source}.weight", kernel, transposed, rows, layers, surplus, groups)
        if bias:
            yield Rule(f"{source}.bias", biases, as_is, rows, layers, surplus, groups)
        start += outputs


def decoder_ignored(model: str = "model.") -> tuple[Ignored, ...]:
    """Buffers of rotary embedding, which old checkpoints have."""
    return (
        Ignored(f"{model}layers.{LAYER}.self_attn.rotary_emb.inv_freq", BUFFER),
        Ignored(f"{model}rotary_emb.inv_freq", BUFFER),
    )


def decoder_tied(
    config: DecoderConfig,
    model: str = "model.",
    head: str = "lm_head",
    embedding: str = "embed_tokens",
) -> tuple[Tied, ...]:
    """With tied embeddings, the vocabulary projection that a checkpoint may yet have."""
    if not config.tied_embeddings:
        return ()
    return (Tied(f"{head}.weight", f"{model}{embedding}.weight"),)


def linear(
    source: str, target: str, *, layers: int | None = None, surplus: str = ""
) -> Iterator[Rule]:
    """Weight and bias of one linear layer."""
    yield Rule(f"{source}.weight", f"{target}/kernel", transposed, layers=layers, surplus=surplus)
    yield Rule(f"{source}.bias", f"{target}/bias", layers=layers, surplus=surplus)


def norm(
    source: str, target: str, *, layers: int | None = None, surplus: str = ""
) -> Iterator[Rule]:
    """Weight and bias of one layer norm."""
    yield Rule(f"{source}.weight", f"{target}/scale", layers=layers, surplus=surplus)
    yield Rule(f"{source}.bias", f"{target}/bias", layers=layers, surplus=surplus)


def _around_layers(config: DecoderConfig, model: str, head: str) -> Iterator[Rule]:
    yield Rule(f"{model}embed_tokens.weight", "decoder/embedding/embedding")
    yield Rule(f"{model}norm.weight", "decoder/norm/scale")
    if not config.tied_embeddings:
        yield Rule(f"{head}.weight", "decoder/unembedding/kernel", transposed)
    layer = f"{model}layers.{LAYER}."
    yield Rule(f"{layer}input_layernorm.weight", "decoder/layers/attention_norm/scale")
    yield Rule(f"{layer}post_attention_layernorm.weight", "decoder/layers/mlp_norm/scale")
