"""LLaVA-OneVision-1.5 against a rendering of its released code in PyTorch.

`tests/models/test_releases.py` compares with values of the released class itself.
"""

import json
import math

import numpy as np
import pytest
import torch

from flowjax.data.prompt import VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.models.families.llava_onevision1_5 import FAMILY, read_config, read_preprocessor
from flowjax.models.sharding import split_axes
from flowjax.models.video_llm import parameter_shapes
from flowjax_convert.run import convert
from tests.convert.checkpoints import rewrite
from tests.models import parity
from tests.models.family import FamilyTests, asked_in
from tests.models.qwen_vl import TEXT, TOKENIZER, TOKENS, VIDEO, randomise
from tests.models.rice_vit import OneVision

VISION = {
    "depth": 3,
    "embed_dim": 32,
    "hidden_act": "gelu",
    "hidden_size": 32,
    "in_channels": 3,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-5,
    "model_type": "rice_vit",
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 1,
    "text_hidden_size": 32,
}
UNREAD = {
    *(name for name in TOKENS if name != "video_token_id"),
    *("vocab_size", "tie_word_embeddings"),
    *("vision_config.embed_dim", "vision_config.temporal_patch_size"),
    *("text_config.video_token_id", "text_config.max_window_layers"),
}
RELEASED = {
    "architectures": ["LLaVAOneVision1_5_ForConditionalGeneration"],
    "image_token_id": 151655,
    "model_type": "llavaonevision1_5",
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "image_token_id": None,
        "initializer_range": 0.02,
        "intermediate_size": 12288,
        "layer_types": ["full_attention"] * 36,
        "max_position_embeddings": 32768,
        "max_window_layers": 36,
        "model_type": "LLaVAOneVision1_5_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "use_cache": True,
        "use_sliding_window": False,
        "video_token_id": None,
        "vocab_size": 151936,
    },
    "torch_dtype": "bfloat16",
    "video_token_id": 151656,
    "vision_config": VISION
    | {
        "depth": 24,
        "embed_dim": 1024,
        "hidden_size": 1024,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "num_heads": 16,
        "patch_size": 14,
        "text_hidden_size": 4096,
    },
    "vocab_size": 152064,
}
"""The form of the 8B model's configuration."""

# Decoder, vision encoder, tied embeddings, frames and their size.
CASES = {
    "mha": ({"head_dim": 8, "num_hidden_layers": 2}, {}, False, (5, 40, 56)),
    "gqa-tied": (
        {
            "head_dim": 16,
            "num_key_value_heads": 2,
            "num_hidden_layers": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
        {"hidden_act": "gelu_pytorch_tanh", "num_heads": 4, "layer_norm_eps": 1e-3},
        True,
        (6, 24, 32),
    ),
    "one-frame": (
        {"head_dim": 8, "num_key_value_heads": 1, "num_hidden_layers": 2},
        {"spatial_merge_size": 3, "depth": 2, "hidden_size": 48},
        False,
        (1, 36, 108),
    ),
}
PREPROCESSOR = {"patch_size": 4, "temporal_patch_size": 1, "min_pixels": 1, "max_pixels": 10_000}


def config_of(theirs, vision):
    """`config.json` as the release writes it."""
    text = theirs.config.to_dict()
    for name in ("sliding_window", "max_window_layers", "id2label", "label2id"):
        text.pop(name, None)
    rope = text.pop("rope_parameters")
    window = {"use_sliding_window": False, "max_window_layers": 36, "video_token_id": VIDEO}
    return {
        **TOKENS,
        "model_type": "llavaonevision1_5",
        "tie_word_embeddings": True,
        "text_config": text
        | window
        | {"model_type": "LLaVAOneVision1_5_text", "rope_theta": rope["rope_theta"]},
        "vision_config": vision,
        "vocab_size": 152064,
    }


def files_of(theirs, vision):
    merge = vision["spatial_merge_size"]
    return {
        "config.json": config_of(theirs, vision),
        "preprocessor_config.json": PREPROCESSOR | {"merge_size": merge},
    }


def case(folder, text, vision, tied, size):
    vision = VISION | vision
    theirs = OneVision(TEXT | text, vision, tied=tied)
    randomise(theirs, tied)

    def call(prompt, pixel_values):
        frames, rows, columns, block, values = pixel_values.shape
        side = math.isqrt(block)
        patches = torch.from_numpy(pixel_values.reshape(-1, values))
        ids = torch.from_numpy(prompt.ids.astype(np.int64))
        with torch.no_grad():
            grid = frames, rows * side, columns * side
            return {"inputs_embeds": theirs.embed(ids, VIDEO, patches, grid)}

    pair = parity.converted(folder, theirs, TOKENIZER, files_of(theirs, vision))
    return parity.ask(pair, call=call, frames=parity.random_frames(*size))


asked = asked_in(CASES, case)


class TestFamily(FamilyTests):
    unread = UNREAD


def test_keys_of_the_modules_themselves(asked, tmp_path):
    """The other layout, `model.visual.` and `model.language_model.`, is read as well."""
    theirs, other = asked.pair.theirs, tmp_path / "other"
    files = {
        name: json.loads((asked.pair.checkpoint / name).read_text())
        for name in ("config.json", "preprocessor_config.json")
    }
    parity.save_checkpoint(other, theirs, TOKENIZER, files)

    def rename(tensors):
        for key in list(tensors):
            inner = "model.visual." if key.startswith("visual.") else "model.language_model."
            if not key.startswith("lm_head."):
                tensors[inner + key.split(".", 1)[1]] = tensors.pop(key)

    rewrite(other / "model.safetensors", rename)
    convert(other, tmp_path / "model")
    ours = load_model(tmp_path / "model")
    logits = parity.forward(ours.model, asked.embedded)[-1]
    parity.assert_close(logits, parity.forward(asked.pair.ours.model, asked.embedded)[-1], "logits")


def test_released_8b_sizes():
    config = read_config(RELEASED, "config.json")
    shapes = parameter_shapes(config)
    decoder = config.decoder
    assert (decoder.layers, decoder.head_dim, decoder.rope.theta) == (36, 128, 1e6)
    assert (decoder.vocabulary, decoder.tied_embeddings, decoder.qk_norm) == (151936, False, True)
    assert config.vision.patch_values == 588
    assert config.placeholder == 151656
    text = RELEASED["text_config"]
    with torch.device("meta"):
        theirs = OneVision(text, RELEASED["vision_config"], tied=False)
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert sum(map(math.prod, shapes.values())) == count
    for path in shapes:
        split_axes(path)


def test_a_video_processor_left_from_qwen2_5_vl():
    """The release's code cannot read patches of two frames."""
    left = {"temporal_patch_size": 2, "patch_size": 14, "min_pixels": 3136}
    processor = read_preprocessor(left, "")
    assert processor(parity.random_frames(3, 56, 84)).shape == (3, 2, 3, 4, 588)


def test_prompt_has_a_cell_for_every_frame():
    config = read_config(RELEASED, "config.json")
    shape = VideoShape((3, 2, 5, 4, 588), (0.0, 0.5, 1.0))
    prompt = FAMILY.prompt(config, parity.QUESTION, shape)
    assert prompt.videos == ((("frame_0", 10), ("frame_1", 10), ("frame_2", 10)),)
    assert prompt.grids == ()
    assert prompt.text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("vision_config", "text_hidden_size", 64, "must be the decoder's width, 4096"),
        ("vision_config", "num_heads", 3, "must be a multiple of 4 \\* num_heads, 12"),
        ("vision_config", "model_type", "clip", "only 'rice_vit' is supported"),
        ("text_config", "attention_bias", True, "only False is supported"),
        ("text_config", "use_sliding_window", True, "only False is supported"),
        ("text_config", "model_type", "llama", "only 'qwen3' is supported"),
    ],
)
def test_refusals(part, field, value, message):
    fields = RELEASED | {part: RELEASED[part] | {field: value}}
    with pytest.raises(FlowjaxError, match=message):
        read_config(fields, "config.json")
