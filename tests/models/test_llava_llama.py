"""LLaVA's original layout with a Llama or Mistral decoder.

`transformers` has the same modules (LLaVA-NeXT-Video): its checkpoints, with keys renamed as the
original code writes them.
"""

import json

import pytest
from safetensors.torch import save_file
from transformers import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.models.families.llava_llama import FAMILY, SYSTEM, read_config
from flowjax_convert.run import convert
from tests.convert.checkpoints import rewrite
from tests.models import parity
from tests.models.family import FamilyTests, asked_in

TOKENIZER = parity.llama_tokenizer(())
TEXT = {
    "vocab_size": 364,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
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
RELEASED = {
    "architectures": ["LlavaLlamaForCausalLM"],
    "attention_bias": False,
    "freeze_mm_mlp_adapter": False,
    "freeze_mm_vision_resampler": False,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": [[336, 672]],
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "mm_hidden_size": 1024,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_lr": None,
    "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": "spatial_pool",
    "mm_spatial_pool_mode": "average",
    "mm_spatial_pool_out_channels": 1024,
    "mm_spatial_pool_stride": 2,
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "model_type": "llava",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 2.0, "type": "linear"},
    "tie_word_embeddings": False,
    "tokenizer_padding_side": "right",
    "tune_mm_mlp_adapter": False,
    "tune_mm_vision_resampler": False,
    "unfreeze_mm_vision_tower": True,
    "use_mm_proj": True,
    "vocab_size": 32000,
}
"""The form of LLaVA-NeXT-Video-7B's configuration, as far as it is public."""

# Decoder, the rest, frames, and a seed with which knockouts show.
CASES = {
    "llama-average": ({"rope_scaling": {"type": "linear", "factor": 2.5}}, {}, 4, 0),
    "mistral-max": (
        {"sliding_window": 400},
        {
            "architectures": ["LlavaMistralForCausalLM"],
            "model_type": "llava_mistral",
            "mm_spatial_pool_mode": "max",
            "mm_vision_select_layer": -1,
        },
        3,
        2,
    ),
    "llama-conv": ({"num_hidden_layers": 2}, {"mm_spatial_pool_mode": "conv"}, 1, 1),
}
RENAMED = {
    "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
    "model.multi_modal_projector.linear_1": "model.mm_projector.0",
    "model.multi_modal_projector.linear_2": "model.mm_projector.2",
    "model.language_model.": "model.",
}
UNREAD = {
    "freeze_mm_mlp_adapter", "freeze_mm_vision_resampler", "image_aspect_ratio",
    "image_grid_pinpoints", "max_position_embeddings", "mm_patch_merge_type",
    "mm_use_im_patch_token", "mm_vision_tower", "tune_mm_mlp_adapter", "tune_mm_vision_resampler",
    "unfreeze_mm_vision_tower", "use_mm_proj",
}  # fmt: skip


def fields_of(text, top, frames):
    sizes = {"mm_hidden_size": 32, "mm_spatial_pool_out_channels": 32, "num_frames": frames}
    return RELEASED | {"rope_scaling": None} | TEXT | sizes | text | top | {"vision_config": VISION}


def torch_model(text, top, seed=0):
    scaling = text.get("rope_scaling")
    rope = {"rope_type": "default"} | (
        {"rope_type": scaling["type"], "factor": scaling["factor"]} if scaling else {}
    )
    decoder = TEXT | {name: value for name, value in text.items() if name != "rope_scaling"}
    kind = "mistral" if top.get("model_type") == "llava_mistral" else "llama"
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    theirs = LlavaNextVideoForConditionalGeneration(
        LlavaNextVideoConfig(
            text_config={
                "model_type": kind,
                "rope_parameters": rope | {"rope_theta": 1e4},
                "tie_word_embeddings": False,
                **decoder,
                **ends,
            },
            vision_config=VISION,
            video_token_index=0,
            image_token_index=363,
            spatial_pool_mode=top.get("mm_spatial_pool_mode", "average"),
            vision_feature_layer=top.get("mm_vision_select_layer", -2),
        )
    ).eval()
    theirs.set_attn_implementation("eager")
    parity.randomise(theirs, seed)
    return theirs


def original_tensors(theirs):
    """The parameters by the keys of the original code."""
    tensors = {}
    for key, tensor in theirs.state_dict().items():
        for own, original in RENAMED.items():
            if key.startswith(own):
                key = original + key.removeprefix(own)
                break
        tensors[key] = tensor.contiguous()
    return tensors


def checkpoint_of(folder, theirs, fields):
    folder.mkdir()
    save_file(original_tensors(theirs), folder / "model.safetensors")
    TOKENIZER.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(fields))
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    (folder / "preprocessor_config.json").write_text(json.dumps(size))
    return folder


def case(folder, text, top, frames, seed):
    theirs = torch_model(text, top, seed)
    checkpoint = checkpoint_of(folder / "checkpoint", theirs, fields_of(text, top, frames))
    convert(checkpoint, folder / "model")
    pair = parity.Pair(theirs, load_model(folder / "model"), checkpoint)
    assert (pair.ours.config.family, pair.ours.config.frames) == ("llava_llama", frames)
    return parity.ask(pair)


asked = asked_in(CASES, case)


class TestFamily(FamilyTests):
    unread = UNREAD
    unread_keys = ("model.image_newline",)


def test_a_release_without_videos_is_pooled(tmp_path):
    """LLaVA-1.5 and 1.6."""
    top = {"mm_resampler_type": None}
    fields = fields_of({}, top, 2)
    for name in ("mode", "out_channels", "stride"):
        del fields[f"mm_spatial_pool_{name}"]
    del fields["num_frames"]
    source = checkpoint_of(tmp_path / "source", torch_model({}, {}), fields)
    with pytest.raises(FlowjaxError, match=r"no path for videos; convert with --pooling-shape"):
        convert(source, tmp_path / "model")
    convert(source, tmp_path / "model", pooling_shape=(2, 4, 4))
    config = load_model(tmp_path / "model", parameters=False).config
    assert (config.frames, config.tokens_per_frame) == (2, 16)


def test_a_tower_that_is_elsewhere(asked, tmp_path):
    source = checkpoint_of(
        tmp_path / "source",
        asked.pair.theirs,
        json.loads((asked.pair.checkpoint / "config.json").read_text()),
    )

    def strip(tensors):
        for key in [key for key in tensors if "vision_tower" in key]:
            del tensors[key]

    rewrite(source / "model.safetensors", strip)
    with pytest.raises(FlowjaxError, match=r"class_embedding is missing .* does not hold its"):
        convert(source, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_released_configuration():
    config = read_config(RELEASED, "config.json")
    assert (config.frames, config.tokens_per_frame) == (32, 144)
    assert (config.vision.layers, config.vision.grid) == (23, 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_vision_tower": "BAAI/EVA"}, "mm_vision_tower is 'BAAI/EVA'; known is clip-vit-large"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'"),
        ({"mm_newline_position": "grid"}, "mm_newline_position is 'grid'"),
        ({"mm_spatial_pool_mode": "bilinear"}, "mm_spatial_pool_mode is 'bilinear'"),
        ({"mm_spatial_pool_stride": 25}, "a frame has only 24 rows"),
    ],
)
def test_refused_configurations(changes, message):
    with pytest.raises(FlowjaxError, match=message):
        read_config(RELEASED | changes, "config.json")


@pytest.mark.parametrize(
    ("changes", "start", "end"),
    [
        ({}, f"{SYSTEM}USER: <unk>\nQ?", " ASSISTANT:"),
        ({"architectures": ["LlavaMistralForCausalLM"]}, "[INST] <unk>\nQ?", " [/INST]"),
        (
            {"vocab_size": 64000},
            "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<unk>\nQ?",
            "<|im_end|><|im_start|>assistant\n",
        ),
    ],
)
def test_prompt(changes, start, end):
    config = read_config(RELEASED | changes, "config.json")
    prompt = FAMILY.prompt(config, Question("Q?", ()), VideoShape((32, 3, 336, 336), (0.0,)))
    assert prompt.text == start + end
