"""Qwen2.5-VL against random tiny models of `transformers`."""

import dataclasses
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.vision_utils import get_vision_window_index

from flowjax.data.prompt import RopeGrid, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.layout import encode_prompt, rope_positions
from flowjax.models.families.qwen2_5_vl import FAMILY, read_config
from flowjax.models.rope import MultimodalRope
from flowjax.models.sharding import split_axes
from flowjax.models.video_llm import parameter_shapes
from flowjax.models.vision.qwen2_5_vl import frame_windows
from flowjax_convert.run import convert
from tests.convert.checkpoints import rewrite, tensors_of
from tests.models import parity
from tests.models.family import FamilyTests, asked_in
from tests.models.qwen_vl import (
    TEXT,
    TOKENIZER,
    TOKENS,
    VISION,
    parameters_of,
    randomise,
    video_inputs,
)

UNREAD = {
    *("image_token_id", "vision_start_token_id", "vision_end_token_id"),
    *("text_config.sliding_window", "text_config.max_window_layers"),
}
RELEASED = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 128000,
    "max_window_layers": 28,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 152064,
}
"""The form of the released 7B model's configuration: the decoder's fields on the top level."""

# Decoder, vision encoder, tied embeddings, frames and their size. Blocks are 8 pixels a side, but
# for the last case, where they are 12: grids of 3 x (5 x 7), 3 x (3 x 4) and 1 x (3 x 9) blocks.
CASES = {
    "mha-odd-windows": (
        {"rope_parameters": {"rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
        {"window_size": 16, "fullatt_block_indexes": [1], "tokens_per_second": 3},
        False,
        (5, 40, 56),
    ),
    "gqa-tied-no-full-layer": (
        {
            "num_key_value_heads": 2,
            "num_hidden_layers": 4,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_theta": 1e6, "mrope_section": [2, 1, 1]},
        },
        {
            "window_size": 24,
            "fullatt_block_indexes": [],
            "hidden_act": "gelu",
            "num_heads": 4,
            # So few that time is not the longest axis, after which version 5 puts the text wrongly.
            "tokens_per_second": 1,
        },
        True,
        (6, 24, 32),
    ),
    "mqa-one-frame": (
        {
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "num_hidden_layers": 2,
            "rope_parameters": {"rope_theta": 5e5, "mrope_section": [2, 3, 3]},
        },
        {
            "window_size": 50,
            "fullatt_block_indexes": [0, 2],
            "spatial_merge_size": 3,
            "temporal_patch_size": 3,
            "depth": 4,
        },
        False,
        (1, 36, 108),
    ),
}


def build(text, vision, tied):
    config = Qwen2_5_VLConfig(
        text_config=TEXT | text,
        vision_config=VISION | vision,
        tie_word_embeddings=tied,
        **TOKENS,
    )
    theirs = Qwen2_5_VLForConditionalGeneration(config)
    randomise(theirs, tied)
    return theirs


def preprocessor(config):
    vision = config.vision_config
    return {
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "min_pixels": 1,
        "max_pixels": 10_000,
    }


def case(folder, text, vision, tied, size):
    theirs = build(text, vision, tied)
    files = {"preprocessor_config.json": preprocessor(theirs.config)}
    pair = parity.converted(folder, theirs, TOKENIZER, files)
    depth = theirs.config.vision_config.temporal_patch_size
    seconds = torch.tensor([depth * 0.5])  # a frame every half second, see `parity.ask`

    def call(prompt, pixel_values):
        return video_inputs(prompt, pixel_values) | {"second_per_grid_ts": seconds}

    return parity.ask(pair, call=call, frames=parity.random_frames(*size))


asked = asked_in(CASES, case)


class TestFamily(FamilyTests):
    unread = UNREAD


def test_keys_of_the_modules_themselves(asked, tmp_path):
    """The other layout, `model.visual.` and `model.language_model.`, is read as well."""
    pair, other = asked.pair, tmp_path / "other"
    files = {"preprocessor_config.json": preprocessor(pair.theirs.config)}
    parity.save_checkpoint(other, pair.theirs, TOKENIZER, files)

    def rename(tensors):
        for key in list(tensors):
            inner = "model.visual." if key.startswith("visual.") else "model.language_model."
            if not key.startswith("lm_head."):
                tensors[inner + key.split(".", 1)[1]] = tensors.pop(key)

    rewrite(other / "model.safetensors", rename)
    assert set(tensors_of(other / "model.safetensors")) <= set(pair.theirs.state_dict())
    report = convert(other, tmp_path / "out")
    assert report.parameters == sum(parameter.numel() for parameter in pair.theirs.parameters())


def test_released_configuration():
    """As many parameters as the torch model, each with one sharding rule."""
    config = read_config(RELEASED, "config.json")
    shapes = parameter_shapes(config)
    assert config.decoder.rope == MultimodalRope(128, 1e6, (16, 24, 24), interleaved=False)
    assert config.vision.window == 4
    theirs = parameters_of(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, RELEASED)
    assert sum(map(math.prod, shapes.values())) == theirs
    for path in shapes:
        split_axes(path)


def test_decoder_fields_in_both_places():
    """Those of `text_config` hold, as in every release that writes both; others are unknown."""
    text = {"model_type": "qwen2_5_vl_text", "hidden_size": 3584, "num_attention_heads": 28}
    both = RELEASED | {"text_config": {**text, "num_key_value_heads": 4}}
    kept = ("model_type", "vision_config", "hidden_size", "num_attention_heads", "text_config")
    agreed = {name: both[name] for name in kept}
    assert read_config(agreed, "config.json").decoder.width == 3584
    copies = {"hidden_size": 3585, "sliding_window": 32768, "rope_theta": 5.0, "eos_token_id": 7}
    assert read_config(agreed | copies, "config.json") == read_config(agreed, "config.json")
    with pytest.raises(FlowjaxError, match=r"config\.json: attn_logit_softcapping is 30"):
        read_config(agreed | {"attn_logit_softcapping": 30}, "config.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 25]}}, "mrope_section"),
        ({"rope_scaling": {"type": "mrope", "mrope_interleaved": True}}, "mrope_interleaved"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "short_factor"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"head_dim": 128, "num_attention_heads": 56}, "head_dim"),
        ({"hidden_size": 7168}, "mrope_section"),
        ({"vision_config": {"out_hidden_size": 3585}}, "vision_config.out_hidden_size"),
        ({"vision_config": {"hidden_size": 1282}}, "vision_config.hidden_size"),
        ({"vision_config": {"window_size": 27}}, "vision_config.window_size"),
        ({"vision_config": {"fullatt_block_indexes": [7, 32]}}, "fullatt_block_indexes"),
        ({"vision_config": {"in_chans": 4}}, "vision_config.in_chans"),
        ({"vision_config": {"spatial_patch_size": 16}}, "vision_config.spatial_patch_size"),
        ({"vision_config": {"rope_parameters": {"rope_type": "yarn"}}}, "rope_parameters"),
    ],
)
def test_what_is_not_computed_is_refused(change, words):
    changed = RELEASED | change
    changed["vision_config"] = RELEASED["vision_config"] | change.get("vision_config", {})
    with pytest.raises(FlowjaxError, match=words):
        read_config(changed, "config.json")


@settings(max_examples=60)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
    before=st.integers(0, 20),
    after=st.integers(0, 20),
    seconds=st.floats(0.0625, 9.0, width=32),
    rate=st.integers(1, 40),
)
def test_rope_positions(grid, before, after, seconds, rate):
    """The video's positions; text after it goes on as released (see `test_releases`)."""
    frames, rows, columns = grid
    config = Qwen2_5_VLConfig(text_config=TEXT, vision_config=VISION | {"tokens_per_second": rate})
    kinds = [0] * before + [2] * math.prod(grid) + [0] * after
    theirs = SimpleNamespace(
        config=config,
        get_vision_position_ids=partial(Qwen2_5_VLModel.get_vision_position_ids, None),
    )
    expected, _ = Qwen2_5_VLModel.get_rope_index(
        theirs,
        torch.zeros((1, len(kinds)), dtype=torch.long),
        torch.tensor([kinds]),
        video_grid_thw=torch.tensor([[frames, 2 * rows, 2 * columns]]),
        second_per_grid_ts=torch.tensor([seconds]),
    )
    step = float(np.float32(rate) * np.float32(seconds))
    ours = rope_positions(len(kinds), [before], [RopeGrid(frames, rows, columns, step)])
    video = slice(0, before + math.prod(grid))
    np.testing.assert_array_equal(ours[:, video], expected[:, 0, video])
    following = ours[:, video].max() + 1 + np.arange(after)
    np.testing.assert_array_equal(ours[:, video.stop :], np.broadcast_to(following, (3, after)))


@settings(max_examples=60)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), side=st.integers(1, 5))
def test_windows(rows, columns, side):
    """The patches of every window, in order, are those that `transformers` puts together."""
    order, ends = get_vision_window_index(
        torch.tensor([[1, 2 * rows, 2 * columns]]), 2, window_size=side * 2 * 4, patch_size=4
    )
    patches = (4 * order[:, None] + torch.arange(4)).reshape(-1).numpy()
    expected = np.split(patches, ends[1:-1].numpy())
    windows = frame_windows(rows, columns, side, merge=2)
    ours = [window[window >= 0] for window in windows.patch]
    assert len(ours) == len(expected)
    for mine, other in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(mine, other)
    every = np.arange(4 * rows * columns)
    np.testing.assert_array_equal(windows.patch.reshape(-1)[windows.place], every)


def test_prompt():
    config = read_config(RELEASED, "config.json")
    shape = VideoShape((2, 3, 5, 4, 1176), (0.0, 0.5, 1.1, 1.5))
    prompt = FAMILY.prompt(config, parity.QUESTION, shape)
    assert prompt.text.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|video_pad|><|vision_end|>Question: After the person"
    )
    assert prompt.text.endswith(
        "chair.\nOnly give the best option.<|im_end|>\n<|im_start|>assistant\nBest option:("
    )
    (grid,) = prompt.grids
    assert dataclasses.replace(grid, step=0.0) == RopeGrid(2, 3, 5, 0.0)
    assert grid.step == pytest.approx(2 * 0.5 * 2)
    layout = encode_prompt(prompt, TOKENIZER).layout
    assert layout.cells[:4] == ("system", "frame_0", "frame_1", "instruction")
    assert [len(layout.positions(f"frame_{index}")) for index in range(2)] == [15, 15]


def test_patches_of_another_model():
    config = read_config(RELEASED, "config.json")
    with pytest.raises(FlowjaxError, match="4 x 1536 values, but the model reads 4 x 1176"):
        FAMILY.prompt(config, parity.QUESTION, VideoShape((2, 3, 5, 4, 1536), (0.0, 0.5)))
