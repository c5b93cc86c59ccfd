"""InternVL in its original layout, against random tiny models of `transformers`.

That library has the same modules in another layout: its checkpoints, with keys renamed and fused as
the original code writes them, give variants that the recorded values in `tests/oracle` lack.
"""

import copy
import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration

from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.models.families.internvl import FAMILY, SYSTEM, read_config
from flowjax.models.rope import DynamicRope
from flowjax.models.sharding import split_axes
from flowjax.models.video_llm import parameter_shapes
from flowjax_convert.run import convert
from tests.models import parity
from tests.models.family import FamilyTests, asked_in

CHATML = parity.byte_tokenizer(["<img>", "</img>", "<IMG_CONTEXT>", "<|im_start|>", "<|im_end|>"])
PHI3 = parity.llama_tokenizer(["<|user|>", "<|assistant|>", "<img>", "</img>", "<IMG_CONTEXT>"])
LLM = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
LONG_ROPE = {
    "type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.4],
    "long_factor": [1.1, 2.0, 4.0, 9.0],
}
VISION = {
    "model_type": "intern_vit_6b",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 28,
    "patch_size": 7,
    "norm_type": "layer_norm",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "qk_normalization": False,
    "hidden_act": "gelu",
    "use_flash_attn": True,
}
TOP = {
    "model_type": "internvl_chat",
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": 28,
    "hidden_size": 32,
    "max_dynamic_patch": 12,
    "min_dynamic_patch": 1,
    "num_frames": 3,
    "pad2square": False,
    "ps_version": "v2",
    "select_layer": -1,
    "template": "phi3-chat",
    "tie_word_embeddings": False,
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
    "use_thumbnail": True,
}
CASES = {
    "phi3-v1": (
        {"model_type": "phi3", "sliding_window": 4096, "max_position_embeddings": 4096},
        {"num_hidden_layers": 3},
        {"ps_version": "v1", "select_layer": -2},
    ),
    "phi3-long": (
        {
            "model_type": "phi3",
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 300,
            "rope_scaling": LONG_ROPE,
        },
        {"qkv_bias": False},
        {"num_frames": 1},
    ),
    "qwen2-tied": (
        {"model_type": "qwen2", "rope_theta": 1e6, "tie_word_embeddings": True},
        {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False},
        {"template": "Hermes-2", "tie_word_embeddings": True},
    ),
    "llama": (
        {"model_type": "llama", "num_key_value_heads": 1, "num_hidden_layers": 2},
        {"image_size": 56, "num_hidden_layers": 1},
        {"template": "internvl2_5", "num_frames": 2, "force_image_size": 56},
    ),
}
CASES |= {
    "qwen3": (
        {"model_type": "qwen3", "head_dim": 16, "num_key_value_heads": 1, "num_hidden_layers": 2},
        {"num_hidden_layers": 1},
        {"template": "internvl2_5", "num_frames": 2},
    ),
}
INTERNLM2 = {"model_type": "internlm2", "bias": False, "max_position_embeddings": 256}
CASES |= {
    "internlm2-dynamic": (
        INTERNLM2 | {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"num_hidden_layers": 1},
        {"template": "internlm2-chat", "num_frames": 2},
    ),
    "internlm2-tied": (
        INTERNLM2 | {"num_attention_heads": 6, "hidden_size": 48, "tie_word_embeddings": True},
        {"num_hidden_layers": 1},
        {
            "template": "internvl2_5",
            "num_frames": 2,
            "hidden_size": 48,
            "tie_word_embeddings": True,
        },
    ),
}
PREPROCESSOR = {
    "crop_size": 28,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 28,
}
RENAMED = {
    "model.vision_tower": "vision_tower",
    "model.multi_modal_projector": "multi_modal_projector",
    "model.language_model": "language_model.model",
    "vision_tower.embeddings": "vision_model.embeddings",
    "embeddings.cls_token": "embeddings.class_embedding",
    "patch_embeddings.projection": "patch_embedding",
    "embeddings.position_embeddings": "embeddings.position_embedding",
    "vision_tower.encoder.layer": "vision_model.encoder.layers",
    "attention.projection_layer": "attn.proj",
    "attention.q_norm": "attn.q_norm",
    "attention.k_norm": "attn.k_norm",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "lambda_1": "ls1",
    "lambda_2": "ls2",
    "multi_modal_projector.layer_norm": "mlp1.0",
    "multi_modal_projector.linear_1": "mlp1.1",
    "multi_modal_projector.linear_2": "mlp1.3",
}
INTERNLM2_NAMES = {
    "model.embed_tokens": "model.tok_embeddings",
    "language_model.lm_head": "language_model.output",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


def fields_of(llm, vision, top) -> dict:
    return TOP | top | {"llm_config": LLM | llm, "vision_config": VISION | vision}


def torch_model(fields, placeholder) -> torch.nn.Module:
    """The model that `fields` describe, in the layout of `transformers`."""
    vision, llm = fields["vision_config"], copy.deepcopy(fields["llm_config"])
    llm |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    if llm["model_type"] == "internlm2":  # a Llama with other names
        llm["model_type"] = "llama"
    config = InternVLConfig(
        text_config=llm,
        vision_config={
            "attention_bias": vision["qkv_bias"],
            "use_qk_norm": vision["qk_normalization"],
            **{
                name: vision[name]
                for name in vision
                if name not in ("model_type", "qkv_bias", "qk_normalization", "use_flash_attn")
            },
        },
        vision_feature_layer=fields["select_layer"],
        image_token_id=placeholder,
        tie_word_embeddings=fields["tie_word_embeddings"],
    )
    theirs = InternVLForConditionalGeneration(config).eval()
    theirs.set_attn_implementation("eager")
    parity.randomise(theirs, seed=1)
    if fields["ps_version"] == "v1":
        shuffle = theirs.model.pixel_shuffle
        theirs.model.pixel_shuffle = lambda *x, **y: shuffle(*x, **y).transpose(1, 2)
    return theirs


def internlm2_tensors(tensors, config) -> dict[str, torch.Tensor]:
    """With the decoder's keys as InternLM2 has them, and a projection for each head of keys."""
    renamed = {}
    for key, tensor in tensors.items():
        for theirs_part, original_part in INTERNLM2_NAMES.items():
            key = key.replace(theirs_part, original_part)
        renamed[key] = tensor
    for key in [key for key in renamed if ".self_attn.q_proj." in key]:
        parts = [renamed.pop(key.replace("q_proj", f"{name}_proj")) for name in "qkv"]
        by_head = [part.reshape(config.num_key_value_heads, -1, part.shape[1]) for part in parts]
        fused = torch.cat(by_head, dim=1).flatten(0, 1)
        renamed[key.replace("self_attn.q_proj", "attention.wqkv")] = fused
    return renamed


def original_tensors(theirs: torch.nn.Module, kind: str) -> dict[str, torch.Tensor]:
    """The parameters by the keys of the original code, with a decoder of this kind."""
    tensors = {}
    for key, tensor in theirs.state_dict().items():
        name = "language_model." + key if key.startswith("lm_head") else key
        for theirs_part, original_part in RENAMED.items():
            name = name.replace(theirs_part, original_part)
        tensors[name] = tensor
    for key in [key for key in tensors if ".attention.q_proj." in key]:
        parts = [tensors.pop(key.replace("q_proj", f"{name}_proj")) for name in "qkv"]
        tensors[key.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    if theirs.config.tie_word_embeddings:
        del tensors["language_model.lm_head.weight"]
    if kind == "internlm2":
        tensors = internlm2_tensors(tensors, theirs.config.text_config)
    return {key: tensor.contiguous() for key, tensor in tensors.items()}


def case(folder, *settings):
    fields = fields_of(*settings)
    tokenizer = PHI3 if fields["template"] == "phi3-chat" else CHATML
    placeholder = tokenizer.token_to_id("<IMG_CONTEXT>")
    theirs = torch_model(fields, placeholder)
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    tensors = original_tensors(theirs, fields["llm_config"]["model_type"])
    save_file(tensors, checkpoint / "model.safetensors")
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    size = fields["force_image_size"]
    (checkpoint / "config.json").write_text(json.dumps(fields))
    (checkpoint / "preprocessor_config.json").write_text(
        json.dumps(PREPROCESSOR | {"size": size, "crop_size": size})
    )
    convert(checkpoint, folder / "model")
    pair = parity.Pair(theirs, load_model(folder / "model"), checkpoint)
    assert (pair.ours.config.family, pair.ours.config.frames) == ("internvl", fields["num_frames"])
    return parity.ask(pair, call=lambda _, pixels: {"pixel_values": torch.from_numpy(pixels)})


asked = asked_in(CASES, case)


UNREAD = {
    "dynamic_image_size",
    "max_dynamic_patch",
    "min_dynamic_patch",
    "pad2square",
    "use_thumbnail",
}


class TestFamily(FamilyTests):
    unread = UNREAD
    # Few video tokens among 1000 of text matter too little for the edges between them to show.
    test_knockouts = None

    @pytest.mark.parametrize(
        "asked", [name for name in CASES if "internlm2" in name], indirect=True
    )
    def test_edges(self, asked):
        """Of decoders whose knockouts neither `tests/oracle` nor `test_internvl_native` tries."""
        parity.check_knockouts(asked, parity.EDGES[2:])

    def skipped_generation(self, asked):
        dynamic = isinstance(asked.pair.ours.config.decoder.rope, DynamicRope)
        return "a dynamic base stays that of the prompt here, and grows there" if dynamic else ""


def test_every_parameter_has_a_place_on_a_mesh(asked):
    axes = {path: split_axes(path) for path in parameter_shapes(asked.pair.ours.config)}
    assert axes["vision/layers/query/kernel"] == (-1,)
    assert axes["vision/layers/mlp_scale"] == axes["projector/norm/scale"] == ()


@pytest.mark.parametrize(
    "part, changes, message",
    [
        (
            "llm_config",
            {"model_type": "mistral"},
            "llm_config.model_type is 'mistral'; the dec",
        ),
        ("llm_config", {"model_type": "internlm2"}, "llm_config.bias is true, or absent"),
        ("llm_config", {"model_type": None}, "llm_config.model_type is None"),
        ("llm_config", {"sliding_window": 2047}, "llm_config.sliding_window is 2047; it must be"),
        ("llm_config", {"partial_rotary_factor": 0.75}, "partial_rotary_factor is 0.75"),
        ("llm_config", {"attention_bias": True}, "llm_config.attention_bias is True"),
        ("vision_config", {"norm_type": "group_norm"}, "norm_type is 'group_norm'"),
        ("vision_config", {"image_size": 56}, "force_image_size is 28, but .* resizing them"),
        ("vision_config", {"num_hidden_layers": 1}, "select_layer is -2; .* 1 to 1, or -1 to -1"),
        (None, {"ps_version": "v3"}, "ps_version is 'v3'; it must be 'v1' or 'v2'"),
        (None, {"template": "vicuna_v1.1"}, "template is 'vicuna_v1.1'; the conversation formats"),
        (None, {"use_llm_lora": 16}, "use_llm_lora is 16; only 0 is supported"),
        (None, {"hidden_size": 64}, "hidden_size is 64; only 32 is supported"),
        (None, {"downsample_ratio": 0.4}, "downsample_ratio is 0.4; it must be 1 / b"),
        (None, {"tie_word_embeddings": True}, "tie_word_embeddings is True"),
        (None, {"pooling_shape": [3, 4, 4]}, r"pooling_shape must be \[3, 2, 2\]"),
    ],
)
def test_refused_configurations(part, changes, message):
    fields = fields_of(*CASES["phi3-v1"])
    (fields if part is None else fields[part]).update(changes)
    with pytest.raises(FlowjaxError, match=f"^config.json: .*{message}"):
        read_config(fields, "config.json")


def test_the_image_base_model_needs_nothing_more():
    """As released: neither frames nor the placeholder's id are in its configuration."""
    fields = fields_of(*CASES["phi3-v1"])
    del fields["num_frames"]
    config = read_config(fields, "config.json")
    assert (config.frames, config.tokens_per_frame) == (8, 4)
    chosen = read_config(fields | {"num_frames": 16, "pooling_shape": [16, 2, 2]}, "config.json")
    assert chosen.frames == 16


def test_prompts():
    question = Question("Who runs?", ("A dog.", "A cat."), "A")
    shape = VideoShape((2, 3, 28, 28), (0.0, 1.0))
    choices = "Question: Who runs?\nOptions:\n(A) A dog.\n(B) A cat."
    for template, expected in {
        "phi3-chat": (
            f"{SYSTEM} <|user|>\n<img><IMG_CONTEXT></img>\n <|user|>\n{choices} \n"
            "Only give the best option. <|assistant|>\nBest option:("
        ),
        "internvl2_5": (
            f"<|im_start|>system\n{SYSTEM.strip()}<|im_end|>\n<|im_start|>user\n"
            "Frame1: <img><IMG_CONTEXT></img>\nFrame2: <img><IMG_CONTEXT></img>\n"
            f"{choices}\nOnly give the best option.<|im_end|>\n<|im_start|>assistant\nBest option:("
        ),
    }.items():
        fields = fields_of(*CASES["phi3-v1"]) | {"template": template, "num_frames": 2}
        prompt = FAMILY.prompt(read_config(fields, "config.json"), question, shape)
        assert prompt.text == expected
        assert sum(count for video in prompt.videos for _, count in video) == 8
