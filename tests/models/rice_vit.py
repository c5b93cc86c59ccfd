"""LLaVA-OneVision-1.5 in PyTorch, written by us after its released code, with its keys.

`transformers` has no such model. That this one computes what the released class does is tested with
values recorded from that class (`tests/models/record_release.py`); the decoder is Qwen3's of
`transformers`.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.activations import ACT2FN


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x, angle):
        """x [frames, n, width]; angle [n, width / heads / 2]."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        cos, sin = (torch.cat([turn(angle)] * 2, dim=-1) for turn in (torch.cos, torch.sin))

        def rotate(y):
            first, second = y.chunk(2, dim=-1)
            return y * cos + torch.cat([-second, first], dim=-1) * sin

        read = functional.scaled_dot_product_attention(rotate(query), rotate(key), value)
        return self.proj(read.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width, inner, activation):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation = ACT2FN[activation]

    def forward(self, x):
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, fields):
        super().__init__()
        width = fields["hidden_size"]
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-5), nn.LayerNorm(width, 1e-5)
        self.attn = Attention(width, fields["num_heads"])
        self.mlp = Mlp(width, fields["intermediate_size"], fields["hidden_act"])

    def forward(self, x, angle):
        x = x + self.attn(self.norm1(x), angle)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    def __init__(self, fields):
        super().__init__()
        width = fields["hidden_size"]
        self.block = width * fields["spatial_merge_size"] ** 2
        self.ln_q = nn.LayerNorm(width, fields["layer_norm_eps"])
        self.mlp = nn.Sequential(
            nn.Linear(self.block, self.block),
            nn.GELU(),
            nn.Linear(self.block, fields["text_hidden_size"]),
        )

    def forward(self, x):
        return self.mlp(self.ln_q(x).reshape(-1, self.block))


class Patches(nn.Module):
    def __init__(self, width, side):
        super().__init__()
        self.proj = nn.Conv2d(3, width, side, side, bias=False)

    def forward(self, patches):
        side = self.proj.kernel_size[0]
        return self.proj(patches.reshape(-1, 3, side, side)).flatten(1)


class RiceViT(nn.Module):
    """`fields` are those of `vision_config`."""

    def __init__(self, fields):
        super().__init__()
        width = fields["hidden_size"]
        self.merge, self.half = fields["spatial_merge_size"], width // fields["num_heads"] // 2
        self.patch_embed = Patches(width, fields["patch_size"])
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.class_pos_emb = nn.Parameter(torch.zeros(1, self.half))
        self.pre_layernorm = nn.LayerNorm(width, fields["layer_norm_eps"])
        self.blocks = nn.ModuleList([Layer(fields) for _ in range(fields["depth"])])
        self.merger = Merger(fields)

    def forward(self, patches, grid):
        """Patches [n, values] of one video, block by block, and its grid (time, rows, columns)."""
        frames, rows, columns = grid
        place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        blocks = place.reshape(rows // self.merge, self.merge, columns // self.merge, self.merge, 2)
        place = blocks.transpose(1, 2).reshape(-1, 2)
        wave = 10000.0 ** -(torch.arange(0, self.half, 2) / self.half)
        angle = torch.cat([self.class_pos_emb, (place[:, :, None] * wave).flatten(1)])
        x = self.patch_embed(patches).unflatten(0, (frames, -1))
        first = self.class_embedding.expand(frames, 1, -1)
        x = self.pre_layernorm(torch.cat([first, x], dim=1))
        for block in self.blocks:
            x = block(x, angle)
        # As the released code takes the class tokens away: right for the first frame only.
        return self.merger(x.flatten(0, 1)[1 : 1 + len(patches)])


class OneVision(Qwen3ForCausalLM):
    """The decoder, and the vision encoder as `visual`; asked with `inputs_embeds`."""

    def __init__(self, text, vision, *, tied):
        config = Qwen3Config(**text, tie_word_embeddings=tied, attn_implementation="eager")
        super().__init__(config)
        self.visual = RiceViT(vision)

    def embed(self, ids, video_id, patches, grid):
        """Embeddings [1, n, width] of a prompt with a video."""
        embedded = self.get_input_embeddings()(ids)
        embedded[ids == video_id] = self.visual(patches, grid)
        return embedded[None]
