"""What the tests of Qwen2.5-VL and Qwen3-VL have in common."""

import math

import numpy as np
import torch

from tests.models import parity

SEED = 1
"""One with which greedy decoding gives several tokens in all cases."""

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
TOKENIZER = parity.byte_tokenizer(SPECIAL)
VIDEO = TOKENIZER.token_to_id("<|video_pad|>")
TEXT = {
    "vocab_size": 272,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "bos_token_id": None,
    "eos_token_id": None,
}
VISION = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_heads": 2,
    "patch_size": 4,
    "out_hidden_size": 32,
}
TOKENS = {
    "image_token_id": 271,
    "video_token_id": VIDEO,
    "vision_start_token_id": TOKENIZER.token_to_id("<|vision_start|>"),
    "vision_end_token_id": TOKENIZER.token_to_id("<|vision_end|>"),
}


def grid_of(pixel_values):
    """The grid of patches (time, rows, columns) of our pixel values."""
    frames, rows, columns, block, _ = pixel_values.shape
    return torch.tensor([[frames, rows * math.isqrt(block), columns * math.isqrt(block)]])


def video_inputs(prompt, pixel_values):
    """The video's part of the torch models' inputs, but for seconds."""
    ids = torch.from_numpy(prompt.ids.astype(np.int64))[None]
    return {
        "pixel_values_videos": torch.from_numpy(pixel_values.reshape(-1, pixel_values.shape[-1])),
        "video_grid_thw": grid_of(pixel_values),
        "mm_token_type_ids": 2 * (ids == VIDEO).int(),
    }


def randomise(theirs, tied):
    """As `parity.randomise`, but with clearer answers, and small token embeddings where tied.

    Large ones would make every token the likeliest after itself.
    """
    parity.randomise(theirs, SEED)
    with torch.no_grad():
        theirs.get_decoder().norm.weight.mul_(40 if tied else 3)
        if tied:
            theirs.get_input_embeddings().weight.mul_(0.1)


def parameters_of(config_class, model_class, fields):
    """Number of parameters of the torch model that `config.json` describes; allocates nothing."""
    with torch.device("meta"):
        theirs = model_class(config_class(**fields))
    theirs.tie_weights()
    return sum(parameter.numel() for parameter in theirs.parameters())
