"""Configurations as older library versions wrote them are read; nothing in them is overlooked."""

import copy

import pytest

from flowjax.errors import FlowjaxError
from flowjax.hf_config import ANY, EVERYWHERE
from flowjax.models.families.pllava import FAMILY, read_config
from flowjax.models.registry import family_of
from tests.models.refusals import AT_ONE_VALUE

GENERIC = {
    "_name_or_path": "",
    "add_cross_attention": False,
    "architectures": None,
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "bos_token_id": 1,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "eos_token_id": 2,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False,
    "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "pad_token_id": 0,
    "prefix": None,
    "problem_type": None,
    "pruned_heads": {},
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict": True,
    "return_dict_in_generate": False,
    "sep_token_id": None,
    "suppress_tokens": None,
    "task_specific_params": None,
    "temperature": 1.0,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tokenizer_class": None,
    "top_k": 50,
    "top_p": 1.0,
    "torch_dtype": "float16",
    "torchscript": False,
    "typical_p": 1.0,
    "use_bfloat16": False,
}
"""Fields that library versions 4.3x wrote into every nested configuration."""

PUBLISHED = {
    "_name_or_path": "llava-hf/llava-v1.6-vicuna-7b-hf",
    "architectures": ["PllavaForConditionalGeneration"],
    "frame_shape": [24, 24],
    "gradient_checkpointing": False,
    "ignore_index": -100,
    "image_token_index": 32000,
    "model_type": "llava",
    "num_frames": 16,
    "pad_token_id": 32001,
    "pooling_method": "avg",
    "pooling_shape": [16, 12, 12],
    "projector_hidden_act": "gelu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.36.0",
    "use_pooling": True,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
    "text_config": GENERIC
    | {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "transformers_version": "4.36.0",
        "use_cache": True,
        "vocab_size": 32064,
    },
    "vision_config": GENERIC
    | {
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "hidden_act": "quick_gelu",
        "hidden_size": 1024,
        "image_size": 336,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-05,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "tie_word_embeddings": True,
        "transformers_version": "4.36.0",
        "vocab_size": 32000,
    },
}

BASE = {
    "architectures": ["LlavaNextForConditionalGeneration"],
    "ignore_index": -100,
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "image_token_index": 32000,
    "model_type": "llava_next",
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "pad_token_id": 0,
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": 32064,
    },
    "torch_dtype": "float16",
    "transformers_version": "4.39.0.dev0",
    "use_image_newline_parameter": True,
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
    "vocab_size": 32064,
}

UNREAD = {"projection_dim", "max_position_embeddings", "force_eager"} | {
    name for entry in EVERYWHERE if entry.at is ANY for name in entry.fields
}
"""Fields whose value makes no difference."""


def test_published_configuration():
    assert family_of(PUBLISHED, "") is FAMILY
    config = read_config(PUBLISHED, "config.json")
    assert (config.frames, config.tokens_per_frame, config.placeholder) == (16, 144, 32000)
    assert (config.decoder.layers, config.decoder.head_dim, config.decoder.norm_eps) == (
        32,
        128,
        1e-5,
    )
    assert (config.vision.layers, config.vision.grid) == (23, 24)


def test_image_base_model_needs_a_pooling_shape():
    assert family_of(BASE, "") is FAMILY
    with pytest.raises(FlowjaxError, match=r"config\.json: pooling_shape is missing.*--pooling"):
        read_config(BASE, "config.json")
    config = read_config(BASE | {"pooling_shape": [16, 12, 12], "num_frames": 16}, "config.json")
    published = read_config(PUBLISHED, "config.json")
    assert config == published


def fields_of(config):
    for name, value in config.items():
        if isinstance(value, dict) and name.endswith("_config"):
            yield from ((name, inner) for inner in value)
        else:
            yield (None, name)


def changed(config, part, field, value):
    config = copy.deepcopy(config)
    (config if part is None else config[part])[field] = value
    return config


READ = [
    (part, field)
    for part, field in fields_of(PUBLISHED)
    if field not in UNREAD
    and (part, field) != (None, "model_type")  # says which family reads the configuration
    and (part, field) not in {("vision_config", x) for x in ("vocab_size", "tie_word_embeddings")}
]


@pytest.mark.parametrize("part, field", READ)
def test_every_field_at_an_unsupported_value_is_named(part, field):
    name = field if part is None else f"{part}.{field}"
    for value in ("nonsense", [7], -30):
        with pytest.raises(FlowjaxError) as caught:
            read_config(changed(PUBLISHED, part, field, value), "config.json")
        assert name in str(caught.value)


@pytest.mark.parametrize("part", [None, "text_config", "vision_config"])
@pytest.mark.parametrize("field", ["sliding_window", "quantization_config", "attn_logit_softcap"])
def test_an_unknown_field_is_named(part, field):
    name = field if part is None else f"{part}.{field}"
    with pytest.raises(FlowjaxError, match=f"config.json: {name} is 1"):
        read_config(changed(PUBLISHED, part, field, 1), "config.json")


@pytest.mark.parametrize("part", [None, "text_config", "vision_config"])
@pytest.mark.parametrize("field", AT_ONE_VALUE)
def test_a_generic_field_that_would_change_the_computation_is_named(part, field):
    name = field if part is None else f"{part}.{field}"
    with pytest.raises(FlowjaxError, match=f"config.json: {name}"):
        read_config(changed(PUBLISHED, part, field, {"0": [1]}), "config.json")


@pytest.mark.parametrize("model_type", ["bert", None, "LLAVA", 3])
def test_another_model_type_is_named(model_type):
    with pytest.raises(FlowjaxError, match=r"config\.json: model_type .* the families are"):
        family_of(PUBLISHED | {"model_type": model_type}, "config.json")


def test_parts_that_contradict_each_other_are_named():
    wrong = changed(PUBLISHED, "text_config", "vocab_size", 32000)
    with pytest.raises(FlowjaxError, match=r"text_config\.vocab_size is 32000.*32064"):
        read_config(wrong, "config.json")
    with pytest.raises(FlowjaxError, match="num_frames is 8; only 16"):
        read_config(PUBLISHED | {"num_frames": 8}, "config.json")
    with pytest.raises(FlowjaxError, match="frame_shape"):
        read_config(PUBLISHED | {"frame_shape": [12, 12]}, "config.json")
    with pytest.raises(FlowjaxError, match="tie_word_embeddings is True"):
        read_config(PUBLISHED | {"tie_word_embeddings": True}, "config.json")


def test_a_decoder_that_is_not_named_is_a_llama():
    """As `transformers` reads it."""
    fields = copy.deepcopy(PUBLISHED)
    del fields["text_config"]["model_type"]
    assert read_config(fields, "config.json") == read_config(PUBLISHED, "config.json")
