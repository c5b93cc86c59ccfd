"""LLaVA-NeXT-Video against random tiny models of `transformers`."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from transformers import (
    CLIPImageProcessorPil,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
)

from flowjax.data.preprocess import CropPreprocessor
from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.families import pllava
from flowjax.models.families.llava_next_video import FAMILY, read_config
from flowjax.models.rope import LinearRope
from tests.models import parity
from tests.models.family import FamilyTests, asked_in
from tests.models.llava_keys import check_spellings

TOKENIZER = parity.llama_tokenizer(["<video>", "<image>"])
TEXT = {
    "model_type": "llama",
    "vocab_size": 360,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 7,
}
CASES = {
    "mha-average": ({}, {}, {}, 4),
    "gqa-tied-max": (
        {
            "num_key_value_heads": 2,
            "num_hidden_layers": 2,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.5},
            "tie_word_embeddings": True,
        },
        {"hidden_act": "gelu"},
        # Of 8 rows the last 2 fill no block.
        {"spatial_pool_mode": "max", "spatial_pool_stride": 3, "vision_feature_layer": -1},
        1,
    ),
    "mqa-conv": (
        {
            "num_key_value_heads": 1,
            "head_dim": 16,
            "num_hidden_layers": 5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "rms_norm_eps": 1e-5,
        },
        {"patch_size": 8, "num_attention_heads": 2},
        {"spatial_pool_mode": "conv", "vision_feature_layer": 1, "projector_hidden_act": "silu"},
        7,
    ),
    # Shorter than the prompt: the last positions read no video token themselves.
    "mistral-window": (
        {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 400},
        {"num_hidden_layers": 2},
        {},
        4,
    ),
}
UNREAD = {
    "image_grid_pinpoints", "image_seq_length", "image_token_index", "video_seq_length",
    "text_config.max_position_embeddings", "vision_config.projection_dim",
}  # fmt: skip


def config(frames=4, *, text=None, vision=None, **top):
    fields = LlavaNextVideoConfig(
        text_config=TEXT | (text or {}),
        vision_config=VISION | (vision or {}),
        video_token_index=TOKENIZER.token_to_id("<video>"),
        image_token_index=TOKENIZER.token_to_id("<image>"),
        **top,
    )
    fields.num_frames = frames
    return fields


def processor(side=56):
    return CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )


def case(folder, text, vision, top, frames):
    theirs = LlavaNextVideoForConditionalGeneration(config(frames, text=text, vision=vision, **top))
    parity.randomise(theirs)
    files = {"preprocessor_config.json": json.loads(processor().to_json_string())}
    pair = parity.converted(folder, theirs, TOKENIZER, files)
    assert pair.ours.config.frames == frames
    return parity.ask(pair)


asked = asked_in(CASES, case)


class TestFamily(FamilyTests):
    unread = UNREAD
    # Four tokens of a frame among 500 of text matter too little for the other edges to show.
    one_frame_edges = parity.EDGES[2:]


def test_every_spelling_of_the_keys(asked, tmp_path):
    check_spellings(asked.pair, tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"text": {"model_type": "qwen2"}}, "text_config.model_type is 'qwen2'"),
        ({"vision_feature_layer": [-1, -2]}, r"vision_feature_layer is \[-1, -2\]"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy is 'full'"),
        ({"multimodal_projector_bias": False}, "multimodal_projector_bias is False"),
        ({"spatial_pool_stride": 9}, "spatial_pool_stride is 9; a frame has only 8 rows"),
        ({"spatial_pool_mode": "sum"}, "spatial_pool_mode is 'sum'; choose average, max, conv"),
        ({"spatial_pool_out_channels": 16}, "spatial_pool_out_channels is 16; only 32"),
        ({"pooling_shape": [4, 2, 2]}, r"pooling_shape must be \[4, 4, 4\]"),
        ({"video_token_id": 400}, "video_token_i.* is 400; the decoder has 360 tokens"),
    ],
)
def test_refused_configurations(changes, message):
    nested = {name: changes.pop(name) for name in ("text", "vision") if name in changes}
    fields = config(**{name: part for name, part in nested.items() if "model_type" not in part})
    fields = json.loads(fields.to_json_string(use_diff=False))
    for name, part in nested.items():
        fields[f"{name}_config"] |= part
    with pytest.raises(FlowjaxError, match=f"^config.json: .*{message}"):
        read_config(fields | changes, "config.json")


def test_released_configuration():
    """The fields of the hub's 7B model, whose rotary embedding is stretched."""
    fields = {
        "architectures": ["LlavaNextVideoForConditionalGeneration"],
        "ignore_index": -100,
        "image_grid_pinpoints": [[336, 672], [672, 336]],
        "image_seq_length": 576,
        "image_token_index": 32001,
        "model_type": "llava_next_video",
        "projector_hidden_act": "gelu",
        "spatial_pool_mode": "average",
        "spatial_pool_out_channels": 1024,
        "spatial_pool_stride": 2,
        "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5",
            "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 4096,
            "model_type": "llama",
            "pad_token_id": 0,
            "rms_norm_eps": 1e-05,
            "rope_scaling": {"factor": 2.5, "rope_type": "linear", "type": "linear"},
            "torch_dtype": "float16",
            "type": "linear",
            "vocab_size": 32064,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.42.0.dev0",
        "use_image_newline_parameter": True,
        "video_seq_length": 288,
        "video_token_index": 32000,
        "vision_config": {
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "model_type": "clip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
            "vocab_size": 32000,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    ours = read_config(fields, "config.json")
    assert ours.decoder.rope == LinearRope(128, 1e4, 2.5)
    assert (ours.frames, ours.tokens_per_frame, ours.placeholder) == (32, 144, 32000)
    assert (ours.decoder.layers, ours.vision.layers) == (32, 23)


@pytest.mark.parametrize("height, width", [(45, 80), (200, 61), (56, 56)])
def test_preprocessing_is_the_library_s(height, width):
    frames = parity.random_frames(3, height, width)
    theirs = processor()
    expected = theirs(list(frames), return_tensors="np")["pixel_values"]
    fields = json.loads(theirs.to_json_string())
    ours = CropPreprocessor.from_config(fields, "preprocessor_config.json")(frames)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_frames_of_another_size_are_refused(asked):
    wrong = jnp.zeros((asked.pair.ours.config.frames, 3, 48, 48))
    with pytest.raises(FlowjaxError, match="frames have 48 x 48 pixels"):
        asked.pair.ours.model.encode_video(wrong)


def test_prompt():
    fields = json.loads(config(2).to_json_string(use_diff=False))
    question = Question("Who runs?", ("A dog.", "A cat."), "A")
    shape = VideoShape((2, 3, 56, 56), (0.0, 1.0))
    prompt = FAMILY.prompt(read_config(fields, "config.json"), question, shape)
    assert prompt.text == (
        "USER: <video>\nQuestion: Who runs?\nOptions:\n(A) A dog.\n(B) A cat.\n"
        "Only give the best option. ASSISTANT: Best option:("
    )
    assert prompt.videos == ((("frame_0", 16), ("frame_1", 16)),)


@pytest.mark.parametrize(
    ("family", "mark", "expected"),
    [
        (FAMILY, "<video>", "[INST] {}\nWho runs? [/INST]"),
        (pllava.FAMILY, "<image>", f"{pllava.SYSTEM} [INST] {{}}\nWho runs? [/INST]"),
    ],
)
def test_mistral_has_its_own_turns(family, mark, expected):
    fields = json.loads(config(2, text={"model_type": "mistral"}).to_json_string(use_diff=False))
    ours = read_config(fields, "config.json")
    prompt = family.prompt(ours, Question("Who runs?", ()), VideoShape((2,), (0.0, 1.0)))
    assert prompt.text == expected.format(mark)
