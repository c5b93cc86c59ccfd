"""Video-LLaVA against random tiny models of `transformers`."""

import json

import numpy as np
import pytest
from transformers import (
    CLIPImageProcessorPil,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.families.video_llava import FAMILY, read_config
from tests.models import parity
from tests.models.family import FamilyTests, asked_in
from tests.models.llava_keys import check_same_parameters

TOKENIZER = parity.llama_tokenizer(["<image>", "<video>"])
TEXT = {
    "model_type": "llama",
    "vocab_size": 370,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
}
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
CASES = {
    "mha": ({}, {}, {}, 4),
    "gqa-tied": (
        {
            "num_key_value_heads": 2,
            "num_hidden_layers": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "tie_word_embeddings": True,
        },
        {"hidden_act": "gelu"},
        {"vision_feature_layer": -1, "projector_hidden_act": "silu", "tie_word_embeddings": True},
        6,
    ),
}
UNREAD = {
    "image_seq_length", "image_token_index", "video_seq_length", "vision_feature_select_strategy",
    "text_config.max_position_embeddings", "vision_config.projection_dim",
}  # fmt: skip


def config(frames=4, *, text=None, vision=None, **top):
    fields = VideoLlavaConfig(
        text_config=TEXT | (text or {}),
        vision_config=VISION | (vision or {}),
        video_token_index=TOKENIZER.token_to_id("<video>"),
        image_token_index=TOKENIZER.token_to_id("<image>"),
        **top,
    )
    fields.num_frames = frames
    return fields


def case(folder, text, vision, top, frames):
    theirs = VideoLlavaForConditionalGeneration(config(frames, text=text, vision=vision, **top))
    parity.randomise(theirs)
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    fields = json.loads(CLIPImageProcessorPil(**size).to_json_string())
    fields["image_processor_type"] = "VideoLlavaImageProcessor"
    pair = parity.converted(folder, theirs, TOKENIZER, {"preprocessor_config.json": fields})
    assert pair.ours.config.frames == frames
    return parity.ask(pair)


asked = asked_in(CASES, case)


class TestFamily(FamilyTests):
    unread = UNREAD
    unread_keys = ("image_tower.", "model.image_tower.")


def test_the_class_token_comes_first(asked):
    layout, ours = asked.prompt.layout, asked.pair.ours
    positions = layout.positions("frame_1")
    assert len(positions) == ours.config.tokens_per_frame == 17
    places = ours.config.projector.places(asked.prompt.video_position, ours.config.frames, ())
    np.testing.assert_array_equal(places[1], np.asarray(positions[1:]).reshape(4, 4))


def test_keys_of_the_newest_version(asked, tmp_path):
    asked.pair.theirs.save_pretrained(tmp_path / "current", save_original_format=False)
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (tmp_path / "current" / name).symlink_to(asked.pair.checkpoint / name)
    check_same_parameters(asked.pair, tmp_path / "current", tmp_path / "out")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"text": {"model_type": "qwen2"}}, "text_config.model_type is 'qwen2'"),
        ({"vision_feature_layer": [-1, -2]}, r"vision_feature_layer is \[-1, -2\]"),
        ({"multimodal_projector_bias": False}, "multimodal_projector_bias is False"),
        ({"video_token_index": 400}, "video_token_index is 400; the decoder has 370 tokens"),
    ],
)
def test_refused_configurations(changes, message):
    fields = json.loads(config().to_json_string(use_diff=False))
    fields["text_config"] |= changes.get("text", {})
    fields |= {name: value for name, value in changes.items() if name != "text"}
    with pytest.raises(FlowjaxError, match=f"^config.json: .*{message}"):
        read_config(fields, "config.json")


def test_prompt():
    fields = json.loads(config(2).to_json_string(use_diff=False))
    question = Question("Who runs?", ("A dog.", "A cat."), "A")
    shape = VideoShape((2, 3, 56, 56), (0.0, 1.0))
    prompt = FAMILY.prompt(read_config(fields, "config.json"), question, shape)
    assert prompt.text == (
        "USER: <video>\nQuestion: Who runs?\nOptions:\n(A) A dog.\n(B) A cat.\n"
        "Only give the best option. ASSISTANT: Best option:("
    )
    assert prompt.videos == ((("frame_0", 17), ("frame_1", 17)),)
