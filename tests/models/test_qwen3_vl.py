"""Qwen3-VL against random tiny models of `transformers`."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from flowjax.data.prompt import RopeGrid, VideoShape
from flowjax.edges import Knockout
from flowjax.errors import FlowjaxError
from flowjax.layout import encode_prompt, rope_positions
from flowjax.models.families.qwen3_vl import FAMILY, patch_seconds, read_config
from flowjax.models.rope import MultimodalRope
from flowjax.models.sharding import split_axes
from flowjax.models.video_llm import parameter_shapes
from flowjax.models.vision.qwen3_vl import interpolation_matrix
from flowjax.sweeps.engine import planned
from flowjax.sweeps.reference import full_forwards
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

UNREAD = {"image_token_id", "vision_start_token_id", "vision_end_token_id"}
RELEASED = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": 151655,
    "model_type": "qwen3_vl",
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "dtype": "bfloat16",
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2560,
        "initializer_range": 0.02,
        "intermediate_size": 9728,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [24, 20, 20],
            "rope_type": "default",
        },
        "rope_theta": 5000000,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": 151936,
    },
    "tie_word_embeddings": True,
    "transformers_version": "4.57.0.dev0",
    "video_token_id": 151656,
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2560,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}
"""The form of the released 4B model's configuration."""

# Decoder, vision encoder, tied embeddings, frames and their size: grids of 3 x (5 x 7), 2 x (3 x 4)
# and 1 x (5 x 2) blocks. In the last case there are more earlier layers than decoder layers.
CASES = {
    "mha": (
        {"head_dim": 8, "rope_parameters": {"rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
        {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        False,
        (5, 40, 56),
    ),
    "gqa-tied": (
        {
            "num_key_value_heads": 2,
            "num_hidden_layers": 4,
            "head_dim": 16,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_theta": 1e6, "mrope_section": [4, 2, 2]},
        },
        {
            "num_position_embeddings": 100,
            "deepstack_visual_indexes": [2],
            "hidden_act": "gelu",
            "num_heads": 4,
        },
        True,
        (4, 24, 32),
    ),
    "mqa-one-patch": (
        {
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "num_hidden_layers": 2,
            "head_dim": 24,
            "rope_parameters": {"rope_theta": 5e5, "mrope_section": [5, 4, 3]},
        },
        {
            "num_position_embeddings": 49,
            "deepstack_visual_indexes": [0, 2, 3],
            "temporal_patch_size": 3,
            "spatial_merge_size": 3,
            "depth": 4,
        },
        False,
        (3, 60, 24),
    ),
}


def build(text, vision, tied):
    config = Qwen3VLConfig(
        text_config=TEXT | text,
        vision_config=VISION | vision,
        tie_word_embeddings=tied,
        **TOKENS,
    )
    theirs = Qwen3VLForConditionalGeneration(config)
    randomise(theirs, tied)
    return theirs


def case(folder, text, vision, tied, size):
    theirs = build(text, vision, tied)
    config = theirs.config.vision_config
    files = {
        "preprocessor_config.json": {"image_processor_type": "Qwen2VLImageProcessorFast"},
        "video_preprocessor_config.json": {
            "patch_size": config.patch_size,
            "merge_size": config.spatial_merge_size,
            "temporal_patch_size": config.temporal_patch_size,
            "size": {"shortest_edge": 1, "longest_edge": 100_000},
        },
    }
    pair = parity.converted(folder, theirs, TOKENIZER, files)
    return parity.ask(pair, call=video_inputs, frames=parity.random_frames(*size, seed=1))


asked = asked_in(CASES, case)


class TestFamily(FamilyTests):
    unread = UNREAD


def test_deepstack_reaches_the_answer(asked):
    """In both engines: without it the answers are others."""
    decoder, layout = asked.pair.ours.model.decoder, asked.prompt.layout
    without = asked.embedded._replace(deepstack=None)
    for engine in (full_forwards, planned):
        knockouts = [Knockout("video->last", (0,))]
        answers = [engine(decoder, x, layout, knockouts).base for x in (asked.embedded, without)]
        assert np.abs(answers[0] - answers[1]).max() > 1e-2


def test_released_configuration():
    """As many parameters as the torch model, each with one sharding rule."""
    config = read_config(RELEASED, "config.json")
    shapes = parameter_shapes(config)
    assert config.decoder.rope == MultimodalRope(128, 5e6, (24, 20, 20), interleaved=True)
    assert config.decoder.tied_embeddings
    theirs = parameters_of(Qwen3VLConfig, Qwen3VLForConditionalGeneration, RELEASED)
    assert sum(map(math.prod, shapes.values())) == theirs
    for path in shapes:
        split_axes(path)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("text_config", {"rope_scaling": {"rope_type": "ntk"}}, "rope_scaling.rope_type"),
        ("text_config", {"rope_scaling": {"mrope_interleaved": False}}, "mrope_interleaved"),
        ("text_config", {"rope_scaling": {"mrope_section": [24, 20]}}, "mrope_section"),
        ("text_config", {"attention_bias": True}, "text_config.attention_bias"),
        ("text_config", {"model_type": "qwen3_vl_moe_text"}, "text_config.model_type"),
        ("vision_config", {"num_position_embeddings": 2305}, "num_position_embeddings"),
        ("vision_config", {"deepstack_visual_indexes": []}, "deepstack_visual_indexes"),
        ("vision_config", {"deepstack_visual_indexes": [5, 24]}, "deepstack_visual_indexes"),
        ("vision_config", {"deepstack_visual_indexes": [11, 5]}, "deepstack_visual_indexes"),
        ("vision_config", {"out_hidden_size": 2561}, "vision_config.out_hidden_size"),
        ("vision_config", {"in_channels": 1}, "vision_config.in_channels"),
        ("vision_config", {"model_type": "qwen3_vl_moe"}, "vision_config.model_type"),
    ],
)
def test_what_is_not_computed_is_refused(part, change, words):
    with pytest.raises(FlowjaxError, match=words):
        read_config(RELEASED | {part: RELEASED[part] | change}, "config.json")


@settings(max_examples=60)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
    between=st.integers(1, 20),
    after=st.integers(0, 20),
)
def test_rope_positions(grid, between, after):
    frames, rows, columns = grid
    config = Qwen3VLConfig(text_config=TEXT, vision_config=VISION)
    kinds = ([0] * between + [2] * (rows * columns)) * frames + [0] * after
    theirs = SimpleNamespace(
        config=config,
        get_vision_position_ids=partial(Qwen3VLModel.get_vision_position_ids, None),
    )
    expected, _ = Qwen3VLModel.get_rope_index(
        theirs,
        torch.zeros((1, len(kinds)), dtype=torch.long),
        torch.tensor([kinds]),
        video_grid_thw=torch.tensor([[frames, 2 * rows, 2 * columns]]),
    )
    starts = [between + index * (between + rows * columns) for index in range(frames)]
    grids = [RopeGrid(1, rows, columns, 0.0)] * frames
    np.testing.assert_array_equal(rope_positions(len(kinds), starts, grids), expected[:, 0])


@settings(max_examples=60)
@given(
    side=st.integers(1, 9), rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0)
)
def test_interpolated_positions(side, rows, columns, seed):
    table = np.random.default_rng(seed).normal(size=(side * side, 3)).astype(np.float32)
    indices, weights = get_vision_interpolation_indices_and_weights(
        torch.tensor([[1, rows, columns]]), side, align_corners=True
    )
    expected = (table[indices.numpy()] * weights.numpy()[:, :, None]).sum(1)
    by_row, by_column = interpolation_matrix(side, rows), interpolation_matrix(side, columns)
    ours = np.einsum("rs,ct,stw->rcw", by_row, by_column, table.reshape(side, side, 3))
    np.testing.assert_allclose(ours.reshape(-1, 3), expected, atol=1e-5)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 500), min_size=2, max_size=9), st.sampled_from([1, 2, 3]))
def test_seconds_of_the_patches(indices, depth):
    expected = Qwen3VLProcessor._calculate_timestamps(None, list(indices), 24.0, depth)
    ours = patch_seconds(tuple(index / 24.0 for index in indices), depth)
    np.testing.assert_allclose(ours, expected)


def test_prompt():
    config = read_config(RELEASED, "config.json")
    shape = VideoShape((2, 3, 5, 4, 1536), (0.0, 0.5, 1.5))
    prompt = FAMILY.prompt(config, parity.QUESTION, shape)
    assert prompt.text.startswith(
        "<|im_start|>user\n"
        "<0.2 seconds><|vision_start|><|video_pad|><|vision_end|>"
        "<1.5 seconds><|vision_start|><|video_pad|><|vision_end|>"
        "Question: After the person"
    )
    assert prompt.text.endswith(
        "chair.\nOnly give the best option.<|im_end|>\n<|im_start|>assistant\nBest option:("
    )
    encoded = encode_prompt(prompt, TOKENIZER)
    assert encoded.layout.cells[:4] == ("system", "frame_0", "frame_1", "question_format")
    tokens = len("<0.2 seconds>") + 2 + 15
    assert [len(encoded.layout.positions(f"frame_{index}")) for index in range(2)] == [tokens] * 2
    assert len(encoded.video_position) == 30


def test_patches_of_another_model():
    config = read_config(RELEASED, "config.json")
    with pytest.raises(FlowjaxError, match="4 x 1176 values, but the model reads 4 x 1536"):
        FAMILY.prompt(config, parity.QUESTION, VideoShape((2, 3, 5, 4, 1176), (0.0, 0.5)))
