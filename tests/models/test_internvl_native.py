"""InternVL in the layout of `transformers`, against random tiny models of that library."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration

from flowjax.data.preprocess import SquarePreprocessor
from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.families.internvl_native import FAMILY, read_config
from tests.models import parity
from tests.models.family import FamilyTests, asked_in

SPECIAL = ("<img>", "</img>", "<IMG_CONTEXT>", "<|im_start|>", "<|im_end|>")
TOKENIZER = parity.byte_tokenizer(SPECIAL)
TEXT = {
    "model_type": "qwen2",
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
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": [28, 28],
    "patch_size": [7, 7],
}
UNREAD = {
    "image_seq_length",
    "text_config.max_window_layers",
    "text_config.sliding_window",
    "vision_config.hidden_dropout_prob",
    "vision_config.layer_scale_init_value",
    "vision_config.projection_dropout",
}


def model(frames: int, text: dict, vision: dict, **top) -> torch.nn.Module:
    config = InternVLConfig(
        vision_config=VISION | vision,
        text_config=TEXT | text,
        image_token_id=TOKENIZER.token_to_id("<IMG_CONTEXT>"),
        num_frames=frames,
        **top,
    )
    theirs = InternVLForConditionalGeneration(config)
    parity.randomise(theirs, seed=1)
    return theirs


def processor(side: int) -> GotOcr2ImageProcessorPil:
    size = {"height": side, "width": side}
    return GotOcr2ImageProcessorPil(
        size=size, image_mean=[0.4, 0.5, 0.6], image_std=[0.25, 0.3, 0.35]
    )


def saved(processor: GotOcr2ImageProcessorPil) -> dict:
    return json.loads(processor.to_json_string())


def pixels(prompt, pixel_values):
    """InternVL takes frames as images."""
    return {"pixel_values": torch.from_numpy(pixel_values)}


CASES = {
    "mha": ({}, {}, {"tie_word_embeddings": False}, 2),
    "gqa-tied-theta": (
        {
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "rms_norm_eps": 1e-5,
        },
        {"attention_bias": True, "use_qk_norm": True, "norm_type": "rms_norm"},
        {"tie_word_embeddings": True},
        5,
    ),
    "qwen3-mqa": (
        {
            "model_type": "qwen3",
            "num_key_value_heads": 1,
            "head_dim": 12,
            "num_hidden_layers": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
        },
        {
            "image_size": [96, 96],
            "patch_size": [8, 8],
            "num_hidden_layers": 3,
            "hidden_act": "quick_gelu",
        },
        {"tie_word_embeddings": False, "projector_hidden_act": "silu"},
        1,
    ),
    "llama-dynamic": (
        {
            "model_type": "llama",
            "num_key_value_heads": 2,
            "max_position_embeddings": 300,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.5},
        },
        {"num_hidden_layers": 3},
        {"vision_feature_layer": -2, "downsample_ratio": 0.25, "tie_word_embeddings": False},
        3,
    ),
}


def case(folder, text, vision, top, frames):
    theirs = model(frames, text, vision, **top)
    side = theirs.config.vision_config.image_size[0]
    files = {"preprocessor_config.json": saved(processor(side))}
    pair = parity.converted(folder, theirs, TOKENIZER, files)
    assert pair.ours.config.frames == frames
    return parity.ask(pair, call=pixels)


asked = asked_in(CASES, case)


class TestFamily(FamilyTests):
    unread = UNREAD

    def unread_in(self, asked):
        if asked.pair.theirs.config.text_config.model_type == "llama":
            # It has no sliding window, and dynamic rotary embedding reads the length.
            return {name for name in UNREAD if not name.startswith("text_config.")}
        return UNREAD

    def skipped_generation(self, asked):
        rope = asked.pair.theirs.config.text_config.rope_parameters
        if rope["rope_type"] == "dynamic":
            return "transformers does not turn cached keys anew when the base grows"
        return ""


def config(**changes) -> dict:
    fields = InternVLConfig(
        vision_config=VISION, text_config=TEXT, image_token_id=258, tie_word_embeddings=False
    ).to_diff_dict()
    return fields | changes


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"text_config": TEXT | {"model_type": "gpt_oss"}}, "text_config.model_type is 'gpt_oss'"),
        ({"text_config": TEXT | {"layer_types": ["sliding_attention"] * 3}}, "layer_types"),
        ({"vision_config": VISION | {"use_mean_pooling": False}}, "use_mean_pooling is False"),
        ({"vision_config": VISION | {"image_size": [28, 56]}}, r"image_size is \[28, 56\]"),
        ({"vision_config": VISION | {"image_size": 30}}, "image_size is 30; it must be a multiple"),
        ({"vision_config": VISION | {"hidden_size": 30}}, "hidden_size is 30; it must be a mult"),
        ({"vision_config": VISION | {"num_channels": 1}}, "num_channels is 1; it must be 3"),
        ({"vision_feature_layer": 3}, "vision_feature_layer is 3; .* 1 to 2, or -2 to -1"),
        ({"vision_feature_layer": [-1, -2]}, r"vision_feature_layer is \[-1, -2\]"),
        ({"downsample_ratio": 0.3}, "downsample_ratio is 0.3; it must be 1 / b"),
        ({"downsample_ratio": 1 / 3}, "downsample_ratio is 0.333"),
        ({"pooling_shape": [8, 4, 4]}, r"pooling_shape must be \[8, 2, 2\]"),
    ],
)
def test_refused_configurations(changes, message):
    with pytest.raises(FlowjaxError, match=f"^config.json: .*{message}"):
        read_config(config(**changes), "config.json")


def test_absent_fields_have_the_defaults_of_the_library():
    bare = read_config(
        {"model_type": "internvl", "text_config": {"model_type": "qwen2"}, "vision_config": {}},
        "config.json",
    )
    theirs = InternVLConfig(text_config={"model_type": "qwen2"})
    full = read_config(theirs.to_dict() | {"tie_word_embeddings": False}, "config.json")
    assert bare == full
    assert (bare.frames, bare.tokens_per_frame) == (8, 256)


@pytest.mark.parametrize("height, width", [(45, 80), (200, 61), (28, 28)])
def test_preprocessing_is_the_library_s(height, width):
    frames = parity.random_frames(3, height, width)
    theirs = processor(28)
    expected = theirs(list(frames), return_tensors="np")["pixel_values"]
    ours = SquarePreprocessor.from_config(saved(theirs), "preprocessor_config.json")(frames)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "field, value",
    [
        ("do_center_crop", True),
        ("do_resize", False),
        ("resample", 2),
        ("size", {"height": 28, "width": 56}),
        ("size", {"shortest_edge": 28}),
        ("image_std", [1.0, 0.0, 1.0]),
        ("do_flip", True),
    ],
)
def test_refused_preprocessors(field, value):
    with pytest.raises(FlowjaxError, match=f"^preprocessor_config.json: {field} "):
        SquarePreprocessor.from_config(
            saved(processor(28)) | {field: value}, "preprocessor_config.json"
        )


def test_prompt():
    question = Question("Who runs?", ("A dog.", "A cat."), "A")
    two = read_config(config(num_frames=2), "config.json")
    text = FAMILY.prompt(two, question, VideoShape((2, 3, 28, 28), (0.0, 1.0))).text
    assert text == (
        "<|im_start|>user\nFrame1: <img><IMG_CONTEXT></img>\nFrame2: <img><IMG_CONTEXT></img>\n"
        "Question: Who runs?\nOptions:\n(A) A dog.\n(B) A cat.\nOnly give the best option."
        "<|im_end|>\n<|im_start|>assistant\nBest option:("
    )


def test_frames_own_their_numbers_and_brackets(asked):
    layout, tokens = asked.prompt.layout, asked.pair.ours.config.tokens_per_frame
    for index in range(asked.pair.ours.config.frames):
        positions = layout.positions(f"frame_{index}")
        text = "\n" * (index > 0) + f"Frame{index + 1}: "
        assert len(positions) == len(text) + 1 + tokens + 1
        assert (np.diff(positions) == 1).all()
    brackets = [TOKENIZER.token_to_id(token) for token in SPECIAL[:2]]
    owned = asked.prompt.ids[layout.positions("video")]
    assert np.isin(owned, brackets).sum() == 2 * asked.pair.ours.config.frames


def test_frames_of_another_size_are_refused(asked):
    pair = asked.pair
    wrong = jnp.zeros((pair.ours.config.frames, 3, 21, 21))
    with pytest.raises(FlowjaxError, match="frames have 21 x 21 pixels"):
        pair.ours.model.encode_video(wrong)
