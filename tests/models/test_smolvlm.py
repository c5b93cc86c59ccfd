"""SmolVLM2 against random tiny models of `transformers`."""

import json

import numpy as np
import pytest
import torch
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from flowjax.data.preprocess import StretchPreprocessor
from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.families.smolvlm import FAMILY, in_words, read_config
from tests.models import parity
from tests.models.family import FamilyTests, asked_in

TOKENIZER = parity.byte_tokenizer(
    ["<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>"]
)
TEXT = {
    "model_type": "llama",
    "vocab_size": 270,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
VISION = {
    "model_type": "smolvlm_vision",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 7,
}
CASES = {
    "gqa": ({}, {}, {"scale_factor": 2}, 4),
    "mqa-tied": (
        {
            "num_key_value_heads": 1,
            "num_hidden_layers": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 273768.0},
            "tie_word_embeddings": True,
        },
        {"hidden_act": "gelu", "num_hidden_layers": 1, "layer_norm_eps": 1e-5},
        {"scale_factor": 4, "tie_word_embeddings": True},
        12,
    ),
}
UNREAD = {"text_config.max_position_embeddings"}


def config(frames=4, *, text=None, vision=None, **top):
    fields = SmolVLMConfig(
        text_config=TEXT | (text or {}),
        vision_config=VISION | (vision or {}),
        image_token_id=TOKENIZER.token_to_id("<image>"),
        pad_token_id=None,
        **top,
    )
    fields.num_frames = frames
    return fields


def processor(size=56, video_size=72):
    return {
        "do_convert_rgb": True,
        "do_image_splitting": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SmolVLMImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "max_image_size": {"longest_edge": size},
        "processor_class": "SmolVLMProcessor",
        "resample": 1,
        "rescale_factor": 0.00392156862745098,
        "size": {"longest_edge": 4 * size},
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": video_size}},
    }


def case(folder, text, vision, top, frames):
    theirs = SmolVLMForConditionalGeneration(config(frames, text=text, vision=vision, **top))
    parity.randomise(theirs)
    files = {"preprocessor_config.json": processor()}
    pair = parity.converted(folder, theirs, TOKENIZER, files)
    assert pair.ours.config.frames == frames
    return parity.ask(pair, call=lambda _, pixels: {"pixel_values": torch.from_numpy(pixels)[None]})


asked = asked_in(CASES, case)


class TestFamily(FamilyTests):
    unread = UNREAD


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"text": {"model_type": "qwen2"}}, "text_config.model_type is 'qwen2'"),
        ({"vision": {"model_type": "clip_vision_model"}}, "vision_config.model_type is 'clip_vi"),
        ({"vision": {"image_size": 6}}, "image_size at least patch_size"),
        ({"scale_factor": 3}, "scale_factor is 3; it must divide the 8 patches along a side"),
        ({"image_token_id": 400}, "image_token_id is 400; the decoder has 270 tokens"),
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
    """The fields of SmolVLM2-256M-Video-Instruct, those of its training code among them."""
    fields = {
        "image_token_id": 49190,
        "model_type": "smolvlm",
        "pad_token_id": 2,
        "scale_factor": 4,
        "text_config": {
            "_flash_attn_2_enabled": True,
            "architectures": ["VLlama3ForCausalLM"],
            "head_dim": 64,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "is_llama_config": True,
            "max_position_embeddings": 8192,
            "model_type": "llama",
            "neftune_noise_alpha": 0.0,
            "num_attention_heads": 9,
            "num_hidden_layers": 30,
            "num_key_value_heads": 3,
            "perceiver_config": {"model_type": "vllama3", "resampler_depth": 6},
            "pixel_shuffle_factor": 4,
            "qk_layer_norms": False,
            "rms_norm_eps": 1e-05,
            "rope_interleaved": False,
            "rope_theta": 100000,
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
            "use_resampler": False,
            "vocab_size": 49280,
        },
        "tie_word_embeddings": False,
        "use_reentrant_checkpointing": False,
        "vision_config": {
            "hidden_size": 768,
            "image_size": 512,
            "max_image_size": {"longest_edge": 512},
            "model_type": "smolvlm_vision",
            "num_attention_heads": 12,
            "patch_size": 16,
            "size": {"longest_edge": 2048},
            "tie_word_embeddings": False,
            "use_base_siglip": True,
        },
        "vocab_size": 49280,
    }
    ours = read_config(fields, "config.json")
    assert (ours.tokens_per_frame, ours.vision.layers, ours.decoder.head_dim) == (64, 12, 64)


@pytest.mark.parametrize("height, width", [(45, 80), (200, 61), (56, 56), (90, 31)])
def test_preprocessing_is_the_library_s(height, width):
    """As 4.50 does: the size of videos, no tiles, and Pillow's filter, which only images have."""
    frames, fields = parity.random_frames(2, height, width), processor()
    theirs = SmolVLMImageProcessorPil(**{k: v for k, v in fields.items() if "type" not in k})
    size = fields["video_sampling"]["video_size"]
    out = theirs([list(frames)], do_image_splitting=False, size=size, return_tensors="np")
    ours = StretchPreprocessor.from_config(fields, "preprocessor_config.json")(frames)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, out["pixel_values"][0], rtol=0, atol=1e-6)
    assert out["pixel_attention_mask"].all()


@pytest.mark.parametrize("side", [8, 16, 27, 32])
def test_position_embeddings_go_row_by_row(side):
    """By 4.50's rule for whole frames: which of the table's cells a patch's place falls into."""
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    places = torch.arange(0, 1 - 1e-6, 1 / torch.tensor(side))
    cells = torch.bucketize(places, boundaries, right=True)
    np.testing.assert_array_equal(cells, np.arange(side))


def test_prompt():
    fields = json.loads(config(2).to_json_string(use_diff=False))
    question = Question("Who runs?", ("A dog.", "A cat."), "A")
    shape = VideoShape((2, 3, 56, 56), (0.9, 75.2), 3725.5)
    prompt = FAMILY.prompt(read_config(fields, "config.json"), question, shape)
    frame = "<fake_token_around_image><global-img><image><fake_token_around_image>"
    assert prompt.text == (
        "<|im_start|>User: You are provided the following series of two frames from a 1:02:05 "
        f"[H:MM:SS] video.\n\nFrame from 00:00:{frame}\nFrame from 01:15:{frame}\n\n"
        "Question: Who runs?\nOptions:\n(A) A dog.\n(B) A cat.\nOnly give the best option."
        "<end_of_utterance>\nAssistant: Best option:("
    )
    assert prompt.videos == ((("frame_0", 16),), (("frame_1", 16),))


def test_numbers_in_words():
    words = {0: "zero", 13: "thirteen", 20: "twenty", 64: "sixty-four", 100: "one hundred"}
    words |= {101: "one hundred and one", 320: "three hundred and twenty"}
    assert {number: in_words(number) for number in words} == words
    with pytest.raises(FlowjaxError, match="num_frames is 1000; this family takes at most 999"):
        in_words(1000)
