"""Record what a version of `transformers` writes for tiny models of every family that it has.

Run once with each version, in an environment of its own that also has torch, torchvision and
pillow::

    python tests/convert/record_writers.py tests/convert/recorded

With names of cases after the folder, only these are recorded, beside those that are there.

Every model starts from fields as the released `config.json` has them, made small, and is saved with
`save_pretrained`, as fine-tunes are; so is its processor. The result, `writers-VERSION.json.gz`, is
one object: case -> {"files": {name: content}, "keys": {key: [dtype, shape]}}. No weights are kept.
"""

import copy
import gzip
import json
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors import safe_open
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

Fields = dict[str, Any]

SPECIAL = (
    "<unk>", "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<image>", "<video>",
    "<IMG_CONTEXT>", "<img>", "</img>",
)  # fmt: skip
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
VOCABULARY = 320
"""Embeddings of every model: more than tokens, as in released ones."""

TOKEN = {token: len(BYTES) + index for index, token in enumerate(SPECIAL)}

TEXT: Fields = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
}
QWEN: Fields = {
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_sliding_window": False,
}
MROPE: Fields = {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
VISION_TOKENS: Fields = {
    "vision_start_token_id": TOKEN["<|vision_start|>"],
    "vision_end_token_id": TOKEN["<|vision_end|>"],
    "image_token_id": TOKEN["<|image_pad|>"],
    "video_token_id": TOKEN["<|video_pad|>"],
}
CLIP: Fields = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "image_size": 56,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
SIGLIP: Fields = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "image_size": 56,
    "patch_size": 14,
    "vision_use_head": False,
}
LLAMA: Fields = {"model_type": "llama", "max_position_embeddings": 4096, **TEXT}
QWEN2: Fields = {"model_type": "qwen2", **TEXT, **QWEN}
LLAVA: Fields = {
    "ignore_index": -100,
    "image_token_index": TOKEN["<image>"],
    "projector_hidden_act": "gelu",
    "text_config": LLAMA,
    "vision_config": CLIP,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}
PINPOINTS: Fields = {"image_grid_pinpoints": [[56, 112], [112, 56]]}
NEXT_VIDEO: Fields = {
    **LLAVA,
    **PINPOINTS,
    "image_seq_length": 576,
    "spatial_pool_mode": "average",
    "spatial_pool_stride": 2,
    "video_seq_length": 288,
    "video_token_index": TOKEN["<video>"],
}
LINEAR: Fields = {**LLAMA, "rope_scaling": {"factor": 2.5, "type": "linear"}}
MISTRAL: Fields = {
    "model_type": "mistral",
    **TEXT,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "sliding_window": None,
}
"""As llava-v1.6-mistral-7b-hf and LLaVA-NeXT-Video-7B-32K-hf have it: without a window."""

VIDEO_LLAVA: Fields = {
    **LLAVA,
    "video_token_index": TOKEN["<video>"],
    "image_seq_length": 256,
    "video_seq_length": 2056,
}
SMOLVLM: Fields = {
    "image_token_id": TOKEN["<image>"],
    "scale_factor": 2,
    "text_config": {
        **LLAMA,
        "architectures": ["VLlama3ForCausalLM"],
        "is_llama_config": True,
        "neftune_noise_alpha": 0.0,
        "perceiver_config": {"model_type": "vllama3", "resampler_depth": 6},
        "pixel_shuffle_factor": 4,
        "qk_layer_norms": False,
        "rope_interleaved": False,
        "use_resampler": False,
    },
    "vision_config": {
        "model_type": "smolvlm_vision",
        "hidden_size": 32,
        "image_size": 56,
        "intermediate_size": 48,
        "max_image_size": {"longest_edge": 56},
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "patch_size": 14,
        "size": {"longest_edge": 224},
        "use_base_siglip": True,
    },
}
ONEVISION: Fields = {
    **PINPOINTS,
    "image_token_index": TOKEN["<image>"],
    "video_token_index": TOKEN["<video>"],
    "projector_hidden_act": "gelu",
    "text_config": QWEN2,
    "vision_config": SIGLIP,
    "vision_aspect_ratio": "anyres_max_9",
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
INTERNVL: Fields = {
    "downsample_ratio": 0.5,
    # Version 5 ties them where neither part of the configuration says anything.
    "tie_word_embeddings": False,
    "image_seq_length": 256,
    "image_token_id": TOKEN["<IMG_CONTEXT>"],
    "text_config": {**QWEN2, "rope_scaling": {"factor": 2.0, "rope_type": "dynamic"}},
    "vision_config": {
        "model_type": "internvl_vision",
        "attention_bias": True,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "image_size": [56, 56],
        "patch_size": [14, 14],
        "use_qk_norm": False,
    },
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
}
QWEN2_VL: Fields = {
    **TEXT,
    **QWEN,
    **MROPE,
    **VISION_TOKENS,
    "vision_config": {
        "depth": 2,
        "embed_dim": 32,
        "mlp_ratio": 4,
        "num_heads": 2,
        "in_chans": 3,
        "hidden_size": 32,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
}
QWEN2_5_VL: Fields = {
    **QWEN2_VL,
    "vision_config": {
        "depth": 3,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "in_chans": 3,
        "out_hidden_size": 32,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
}
QWEN3_VL: Fields = {
    **VISION_TOKENS,
    "text_config": {
        **TEXT,
        "model_type": "qwen3_vl_text",
        "head_dim": 8,
        "max_position_embeddings": 262144,
        "rope_theta": 5000000.0,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [2, 1, 1],
            "rope_type": "default",
        },
    },
    "vision_config": {
        "model_type": "qwen3_vl",
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 16,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
    },
}
VIDEO_LLAMA_3: Fields = {
    "text_config": QWEN2,
    "vision_config": {
        "model_type": "video_llama_3_vision",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "patch_size": 14,
    },
    "image_token_id": TOKEN["<|image_pad|>"],
    "video_token_id": TOKEN["<|video_pad|>"],
}


def tied(fields: Fields, part: str | None = None) -> Fields:
    """The fields with tied embeddings, said where the released file says so."""
    changed = copy.deepcopy(fields)
    (changed if part is None else changed[part])["tie_word_embeddings"] = True
    return changed


def both_tied(fields: Fields, part: str) -> Fields:
    """The same, said in both places."""
    return tied(tied(fields), part)


# Case, configuration, model, processor, and the parts of the processor.
CASES: tuple[tuple[str, str, str, str, Fields], ...] = (
    ("qwen2_vl", "Qwen2VLConfig", "Qwen2VLForConditionalGeneration", "Qwen2VL", QWEN2_VL),
    ("qwen2_vl-tied", "Qwen2VLConfig", "Qwen2VLForConditionalGeneration", "", tied(QWEN2_VL)),
    ("qwen2_5_vl", "Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VL",
     QWEN2_5_VL),
    ("qwen2_5_vl-tied", "Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration", "",
     tied(QWEN2_5_VL)),
    ("qwen3_vl", "Qwen3VLConfig", "Qwen3VLForConditionalGeneration", "Qwen3VL", QWEN3_VL),
    ("qwen3_vl-tied", "Qwen3VLConfig", "Qwen3VLForConditionalGeneration", "",
     both_tied(QWEN3_VL, "text_config")),
    ("internvl", "InternVLConfig", "InternVLForConditionalGeneration", "InternVL", INTERNVL),
    ("internvl-tied", "InternVLConfig", "InternVLForConditionalGeneration", "",
     both_tied(INTERNVL, "text_config")),
    ("internvl-llama", "InternVLConfig", "InternVLForConditionalGeneration", "",
     {**INTERNVL, "text_config": LLAMA}),
    ("llava", "LlavaConfig", "LlavaForConditionalGeneration", "Llava", LLAVA),
    ("llava_next", "LlavaNextConfig", "LlavaNextForConditionalGeneration", "LlavaNext",
     {**LLAVA, **PINPOINTS}),
    ("llava_next_video", "LlavaNextVideoConfig", "LlavaNextVideoForConditionalGeneration",
     "LlavaNextVideo", NEXT_VIDEO),
    ("llava_next_video-linear", "LlavaNextVideoConfig", "LlavaNextVideoForConditionalGeneration",
     "", {**NEXT_VIDEO, "text_config": LINEAR}),
    ("llava_next-mistral", "LlavaNextConfig", "LlavaNextForConditionalGeneration", "",
     {**LLAVA, **PINPOINTS, "text_config": MISTRAL}),
    ("llava_next_video-mistral", "LlavaNextVideoConfig", "LlavaNextVideoForConditionalGeneration",
     "", {**NEXT_VIDEO, "text_config": MISTRAL}),
    ("video_llava", "VideoLlavaConfig", "VideoLlavaForConditionalGeneration", "", VIDEO_LLAVA),
    ("smolvlm", "SmolVLMConfig", "SmolVLMForConditionalGeneration", "", SMOLVLM),
    ("smolvlm-tied", "SmolVLMConfig", "SmolVLMForConditionalGeneration", "",
     both_tied(SMOLVLM, "text_config")),
    ("llava_onevision", "LlavaOnevisionConfig", "LlavaOnevisionForConditionalGeneration",
     "LlavaOnevision", ONEVISION),
    ("llava_onevision-tied", "LlavaOnevisionConfig", "LlavaOnevisionForConditionalGeneration", "",
     both_tied(ONEVISION, "text_config")),
    ("video_llama_3", "VideoLlama3Config", "VideoLlama3ForConditionalGeneration", "VideoLlama3",
     VIDEO_LLAMA_3),
)  # fmt: skip

CROP: Fields = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
SIZES: Mapping[str, Fields] = {
    "LlavaOnevision": {"size": {"height": 56, "width": 56}},
    "InternVL": {"size": {"height": 56, "width": 56}},
    "Llava": CROP,
    "LlavaNext": CROP,
    "LlavaNextVideo": CROP,
}
IMAGES = {
    **dict.fromkeys(("Qwen2VL", "Qwen2_5_VL", "Qwen3VL"), "Qwen2VLImageProcessor"),
    "InternVL": "GotOcr2ImageProcessor",
    "LlavaNextVideo": "LlavaNextImageProcessor",
    "Llava": "CLIPImageProcessor",
    "VideoLlama3": "VideoLlama3ImageProcessor",
}
VIDEOS = {
    **dict.fromkeys(("Qwen2VL", "Qwen2_5_VL"), ("Qwen2VLVideoProcessor",)),
    "Qwen3VL": ("Qwen3VLVideoProcessor",),
    "InternVL": ("InternVLVideoProcessor",),
    "LlavaNextVideo": ("LlavaNextVideoVideoProcessor", "LlavaNextVideoImageProcessor"),
    "LlavaOnevision": ("LlavaOnevisionVideoProcessor",),
    "VideoLlama3": ("VideoLlama3VideoProcessor",),
}
"""Classes of videos by processor, newest name first."""


def tokenizer() -> Any:
    """A tokenizer of bytes and special tokens."""
    vocabulary = {byte: index for index, byte in enumerate(BYTES)}
    inner = tokenizers.Tokenizer(BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.add_special_tokens(list(SPECIAL))
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **roles)
    for name in ("start_image_token", "end_image_token", "context_image_token"):
        token = {"s": "<img>", "e": "</img>", "c": "<IMG_CONTEXT>"}[name[0]]
        for attribute, value in ((name, token), (f"{name}_id", TOKEN[token])):
            if not hasattr(made, attribute):
                object.__setattr__(made, attribute, value)
    made.video_token = "<video>"
    return made


def first(*names: str) -> Any:
    """The first class of these names that this version has, or None."""
    return next((found for name in names if (found := getattr(transformers, name, None))), None)


def processors(name: str, folder: Path) -> None:
    """Save a processor, as one object where the version can make one with any tokenizer."""
    sizes = SIZES.get(name, {})
    image = first(IMAGES.get(name, f"{name}ImageProcessor"), f"{name}ImageProcessorFast")
    video = first(*VIDEOS.get(name, ()))
    parts = {"image_processor": image(**sizes)}
    if video is not None:
        parts["video_processor"] = video(**sizes)
    whole = getattr(transformers, f"{name}Processor")
    try:
        whole(**parts, tokenizer=tokenizer()).save_pretrained(folder)
    except TypeError:  # versions up to 4.51 take a tokenizer of one class only
        for part in reversed(parts.values()):
            part.save_pretrained(folder)


def keys(folder: Path) -> Iterator[tuple[str, list[Any]]]:
    """Dtype and shape of every stored tensor."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(key)
                yield key, [part.get_dtype(), list(part.get_shape())]


def record(case: tuple[str, str, str, str, Fields]) -> Fields:
    """Save one model and read what was written."""
    _, config_name, model_name, processor, fields = case
    config = getattr(transformers, config_name).from_dict(copy.deepcopy(fields))
    model = getattr(transformers, model_name)(config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.to(torch.bfloat16).save_pretrained(folder)
        if processor:
            processors(processor, folder)
        files = {
            str(path.relative_to(folder)): json.loads(path.read_text())
            for path in sorted(folder.rglob("*.json"))
            if "processor" in path.name or path.name in ("config.json", "generation_config.json")
        }
        return {"files": files, "keys": dict(keys(folder))}


def main() -> None:
    path = Path(sys.argv[1]) / f"writers-{transformers.__version__}.json.gz"
    chosen, recorded = sys.argv[2:], dict[str, Fields]()
    if chosen:
        recorded |= json.loads(gzip.decompress(path.read_bytes()))
    for case in CASES:
        if not hasattr(transformers, case[1]) or (chosen and case[0] not in chosen):
            continue
        try:
            recorded[case[0]] = record(case)
        except Exception:  # a version that cannot make it says so, and the others are kept
            print(f"{transformers.__version__} {case[0]}", file=sys.stderr)
            traceback.print_exc(limit=-3)
    content = json.dumps(recorded, sort_keys=True).encode()
    path.write_bytes(gzip.compress(content, 9, mtime=0))
    print(path, sorted(recorded), len(content))


if __name__ == "__main__":
    main()
