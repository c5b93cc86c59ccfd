"""One eager PyTorch forward per knockout with dense additive masks, as the reference does it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flowjax.edges import Knockout, cut_table, dense
from flowjax.layout import TokenLayout
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.models.rope import Rope

NAMES = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "output",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}


class TorchLoop:
    """A Llama of `transformers` with the weights of `decoder`, called on a list of knockouts."""

    def __init__(self, decoder: Decoder, embedded: Embedded, layout: TokenLayout) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._layout = layout
        self._model: Any = llama(decoder).to(device=self._device).eval()
        self._x = tensor(embedded.x)[None].to(self._device)
        self._masks: dict[int, torch.Tensor] = {}
        for index, layer in enumerate(self._model.model.layers):
            layer.register_forward_pre_hook(self._hook(index), with_kwargs=True)

    def __call__(self, knockouts: Sequence[Knockout]) -> np.ndarray:
        """Logits at the last position, float32 [len(knockouts), vocabulary]."""
        return np.stack([self._forward(knockout) for knockout in knockouts])

    @torch.no_grad()
    def _forward(self, knockout: Knockout) -> np.ndarray:
        allowed = dense(self._layout, ~cut_table(self._layout, knockout))
        lowest = torch.finfo(self._x.dtype).min
        mask = (1 - torch.from_numpy(allowed).to(self._device, self._x.dtype)) * lowest
        self._masks = dict.fromkeys(knockout.layers, mask[None, None])
        output = self._model(inputs_embeds=self._x, use_cache=False, logits_to_keep=1)
        return output.logits[0, -1].float().cpu().numpy()

    def _hook(self, index: int) -> Any:  # noqa: ANN401 - torch's own type is as wide
        def replace(_: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            if index in self._masks:
                kwargs["attention_mask"] = self._masks[index]
            return args, kwargs

        return replace


def llama(decoder: Decoder) -> Any:  # noqa: ANN401 - the library's own types are incomplete
    """The same model in PyTorch."""
    ours = decoder.config
    assert isinstance(ours.rope, Rope)
    config = LlamaConfig(
        vocab_size=ours.vocabulary,
        hidden_size=ours.width,
        intermediate_size=ours.mlp_width,
        num_hidden_layers=ours.layers,
        num_attention_heads=ours.heads,
        num_key_value_heads=ours.kv_heads,
        head_dim=ours.head_dim,
        rms_norm_eps=ours.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": ours.rope.theta},
        max_position_embeddings=1 << 15,
    )
    config._attn_implementation = "eager"
    dtype = tensor(jax.tree.leaves(decoder.norm)[0]).dtype
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
        model = model.to(dtype=dtype)
    layers: Any = decoder.layers
    unembedding = decoder.unembedding
    assert unembedding is not None
    state = {
        "model.embed_tokens.weight": tensor(decoder.embedding.embedding[...]),
        "model.norm.weight": tensor(jax.tree.leaves(decoder.norm)[0]),
        "lm_head.weight": tensor(unembedding.kernel[...]).T,
    }
    for index in range(ours.layers):
        prefix = f"model.layers.{index}."
        state[f"{prefix}input_layernorm.weight"] = tensor(layers.attention_norm.scale[index])
        state[f"{prefix}post_attention_layernorm.weight"] = tensor(layers.mlp_norm.scale[index])
        for theirs, name in NAMES.items():
            kernel = getattr(layers, name).kernel[index]
            state[f"{prefix}{theirs}.weight"] = tensor(kernel).T
    model.load_state_dict(state, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model


def tensor(array: jax.Array) -> torch.Tensor:
    """The same values on the host; bfloat16 goes through its bits."""
    host = np.array(array)
    if host.dtype.name == "bfloat16":
        return (
            torch.from_numpy(host.view(np.uint16).astype(np.int32))
            .to(torch.int16)
            .view(torch.bfloat16)
        )
    return torch.from_numpy(host)
