"""Qwen2-VL against random tiny models of `transformers`."""

import math

import pytest
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from flowjax.data.prompt import RopeGrid, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.families.qwen2_vl import FAMILY, read_config
from flowjax.models.rope import MultimodalRope
from flowjax.models.sharding import split_axes
from flowjax.models.video_llm import parameter_shapes
from flowjax_convert.run import convert
from tests.convert.checkpoints import rewrite, tensors_of
from tests.models import parity
from tests.models.family import FamilyTests, asked_in
from tests.models.qwen_vl import TEXT, TOKENIZER, TOKENS, parameters_of, randomise, video_inputs

UNREAD = {
    *("image_token_id", "vision_start_token_id", "vision_end_token_id"),
    *("text_config.sliding_window", "text_config.max_window_layers"),
}
VISION = {"depth": 3, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4}
RELEASED = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
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
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_vl",
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
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 152064,
}
"""The form of the released 7B model's configuration: the decoder's fields on the top level."""

# Decoder, vision encoder, tied embeddings, frames and their size. Blocks are 8 pixels a side, but
# for the last case, where they are 12: grids of 3 x (5 x 7), 3 x (3 x 4) and 1 x (3 x 9) blocks.
CASES = {
    "mha": (
        {"rope_parameters": {"rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
        {},
        False,
        (5, 40, 56),
    ),
    "gqa-tied": (
        {
            "num_key_value_heads": 2,
            "num_hidden_layers": 4,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_theta": 1e6, "mrope_section": [2, 1, 1]},
        },
        {"hidden_act": "gelu", "num_heads": 4, "mlp_ratio": 3},
        True,
        (6, 24, 32),
    ),
    "mqa-one-patch": (
        {
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "num_hidden_layers": 2,
            "rope_parameters": {"rope_theta": 5e5, "mrope_section": [2, 3, 3]},
        },
        {"spatial_merge_size": 3, "temporal_patch_size": 3, "depth": 4, "embed_dim": 48},
        False,
        (1, 36, 108),
    ),
}


def build(text, vision, tied):
    config = Qwen2VLConfig(
        text_config=TEXT | text,
        vision_config=VISION | vision,
        tie_word_embeddings=tied,
        **TOKENS,
    )
    theirs = Qwen2VLForConditionalGeneration(config)
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
    return parity.ask(pair, call=video_inputs, frames=parity.random_frames(*size))


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
    theirs = parameters_of(Qwen2VLConfig, Qwen2VLForConditionalGeneration, RELEASED)
    assert sum(map(math.prod, shapes.values())) == theirs
    for path in shapes:
        split_axes(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 25]}}, "mrope_section"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"head_dim": 128, "num_attention_heads": 56}, "head_dim"),
        ({"vision_config": {"hidden_size": 3585}}, "vision_config.hidden_size"),
        ({"vision_config": {"embed_dim": 1282}}, "vision_config.embed_dim"),
        ({"vision_config": {"in_chans": 4}}, "vision_config.in_chans"),
        ({"vision_config": {"spatial_patch_size": 16}}, "vision_config.spatial_patch_size"),
    ],
)
def test_what_is_not_computed_is_refused(change, words):
    changed = RELEASED | change
    changed["vision_config"] = RELEASED["vision_config"] | change.get("vision_config", {})
    with pytest.raises(FlowjaxError, match=words):
        read_config(changed, "config.json")


def test_prompt():
    """Time is counted in temporal patches, whatever the frames' times."""
    config = read_config(RELEASED, "config.json")
    shape = VideoShape((2, 3, 5, 4, 1176), (0.0, 0.5, 1.1, 1.5))
    prompt = FAMILY.prompt(config, parity.QUESTION, shape)
    assert prompt.text.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|video_pad|><|vision_end|>Question: After the person"
    )
    assert prompt.grids == (RopeGrid(2, 3, 5, 1.0),)
