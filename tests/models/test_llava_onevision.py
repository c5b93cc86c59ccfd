"""LLaVA-OneVision against random tiny models of `transformers`."""

import json

import numpy as np
import pytest
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    SiglipImageProcessorPil,
)

from flowjax.data.preprocess import SquarePreprocessor
from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.families.llava_onevision import FAMILY, read_config
from flowjax.models.rope import Rope
from tests.models import parity
from tests.models.family import FamilyTests, asked_in
from tests.models.llava_keys import check_spellings

TOKENIZER = parity.byte_tokenizer(["<|im_start|>", "<|im_end|>", "<video>", "<image>"])
TEXT = {
    "model_type": "qwen2",
    "vocab_size": 270,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 7,
    "vision_use_head": False,
}
CASES = {
    "mha": ({}, {}, {}, 4),
    # A patch does not divide the image, and the grid's side, 5, is odd.
    "gqa-tied": (
        {
            "num_key_value_heads": 2,
            "num_hidden_layers": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "tie_word_embeddings": True,
        },
        {"patch_size": 11, "vision_use_head": True, "hidden_act": "gelu"},
        {"vision_feature_layer": -2},
        1,
    ),
    "mqa": (
        {"num_key_value_heads": 1, "num_hidden_layers": 5, "rms_norm_eps": 1e-5},
        {"num_attention_heads": 2, "patch_size": 8},
        {"vision_feature_layer": 1, "projector_hidden_act": "silu"},
        7,
    ),
}
UNREAD = {
    "image_grid_pinpoints", "image_token_index", "vision_aspect_ratio",
    "text_config.max_position_embeddings", "text_config.max_window_layers",
    "text_config.sliding_window", "vision_config.vision_use_head",
}  # fmt: skip


def config(frames=4, *, text=None, vision=None, **top):
    fields = LlavaOnevisionConfig(
        text_config=TEXT | (text or {}),
        vision_config=VISION | (vision or {}),
        video_token_index=TOKENIZER.token_to_id("<video>"),
        image_token_index=TOKENIZER.token_to_id("<image>"),
        **top,
    )
    fields.num_frames = frames
    return fields


def processor(side=56):
    return SiglipImageProcessorPil(size={"height": side, "width": side})


def case(folder, text, vision, top, frames):
    theirs = LlavaOnevisionForConditionalGeneration(config(frames, text=text, vision=vision, **top))
    parity.randomise(theirs)
    files = {"preprocessor_config.json": json.loads(processor().to_json_string())}
    pair = parity.converted(folder, theirs, TOKENIZER, files)
    assert pair.ours.config.frames == frames
    return parity.ask(pair)


asked = asked_in(CASES, case)


class TestFamily(FamilyTests):
    unread = UNREAD
    # A few tokens of one frame among 500 of text matter too little for the other edges to show.
    one_frame_edges = parity.EDGES[2:]

    def skipped_keys(self, asked):
        has = asked.pair.theirs.config.vision_config.vision_use_head
        return "the pooling head is not needed" if has else ""


def test_every_spelling_of_the_keys(asked, tmp_path):
    check_spellings(asked.pair, tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"text": {"model_type": "mistral"}}, "text_config.model_type is 'mistral'"),
        ({"text": {"layer_types": ["sliding_attention"] * 3}}, "layer_types"),
        ({"vision": {"image_size": 6}}, "image_size at least patch_size"),
        ({"vision_feature_layer": [-1, -2]}, r"vision_feature_layer is \[-1, -2\]"),
        ({"vision_feature_select_strategy": "default"}, "strategy is 'default'; only 'full'"),
        ({"multimodal_projector_bias": False}, "multimodal_projector_bias is False"),
        ({"pooling_shape": [4, 8, 8]}, r"pooling_shape must be \[4, 4, 4\]"),
        ({"video_token_index": 400}, "video_token_index is 400; the decoder has 270 tokens"),
    ],
)
def test_refused_configurations(changes, message):
    fields = json.loads(config().to_json_string(use_diff=False))
    for name in ("text", "vision"):
        fields[f"{name}_config"] |= changes.get(name, {})
    fields |= {name: value for name, value in changes.items() if name not in ("text", "vision")}
    with pytest.raises(FlowjaxError, match=f"^config.json: .*{message}"):
        read_config(fields, "config.json")


def test_released_configuration():
    """The fields of the hub's 0.5B model, whose text part alone says that embeddings are tied."""
    fields = {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "ignore_index": -100,
        "image_grid_pinpoints": [[384, 384], [384, 768]],
        "image_token_index": 151646,
        "model_type": "llava_onevision",
        "projector_hidden_act": "gelu",
        "text_config": {
            "_name_or_path": "Qwen/Qwen2-0.5B-Instruct",
            "architectures": ["Qwen2ForCausalLM"],
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "max_window_layers": 24,
            "model_type": "qwen2",
            "num_attention_heads": 14,
            "num_hidden_layers": 24,
            "num_key_value_heads": 2,
            "rope_theta": 1000000.0,
            "sliding_window": 32768,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": 152000,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.45.0.dev0",
        "use_image_newline_parameter": True,
        "video_token_index": 151647,
        "vision_aspect_ratio": "anyres_max_9",
        "vision_config": {
            "hidden_size": 1152,
            "image_size": 384,
            "intermediate_size": 4304,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 26,
            "patch_size": 14,
            "vision_use_head": False,
        },
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }
    ours = read_config(fields, "config.json")
    assert ours.decoder.tied_embeddings and ours.decoder.rope == Rope(64, 1e6)
    assert (ours.frames, ours.tokens_per_frame, ours.placeholder) == (32, 196, 151647)
    assert (ours.decoder.layers, ours.vision.layers, ours.vision.grid) == (24, 26, 27)


@pytest.mark.parametrize("height, width", [(45, 80), (200, 61), (56, 56)])
def test_preprocessing_is_the_library_s(height, width):
    frames = parity.random_frames(3, height, width)
    theirs = processor()
    expected = theirs(list(frames), return_tensors="np")["pixel_values"]
    fields = json.loads(theirs.to_json_string())
    ours = SquarePreprocessor.from_config(fields, "preprocessor_config.json")(frames)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_the_closing_token_belongs_to_the_last_frame(asked):
    layout, ours = asked.prompt.layout, asked.pair.ours
    last = layout.positions(f"frame_{ours.config.frames - 1}")
    assert len(last) == ours.config.tokens_per_frame + 1
    newline = asked.pair.theirs.model.image_newline.detach().numpy()
    np.testing.assert_array_equal(asked.embedded.x[last[-1]], newline)


def test_prompt():
    fields = json.loads(config(2).to_json_string(use_diff=False))
    question = Question("Who runs?", ("A dog.", "A cat."), "A")
    shape = VideoShape((2, 3, 56, 56), (0.0, 1.0))
    prompt = FAMILY.prompt(read_config(fields, "config.json"), question, shape)
    assert prompt.text == (
        "<|im_start|>user\n<video>\nQuestion: Who runs?\nOptions:\n(A) A dog.\n(B) A cat.\n"
        "Only give the best option.<|im_end|>\n<|im_start|>assistant\nBest option:("
    )
    assert prompt.videos == ((("frame_0", 16), ("frame_1", 17)),)
