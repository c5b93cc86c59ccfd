"""Models to plan for before anything of them is here, by name.

Fields as their `config.json` has them; what changes no size (special tokens, scaled rotary
embedding) is left out, so that these are for planning and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Fields = Mapping[str, Any]

CLIP_FRAMES = {
    "crop_size": 336,
    "size": 336,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
}
INTERN_FRAMES = {
    "crop_size": 448,
    "size": 448,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
}
QWEN_PATCHES = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
NAVIT_PATCHES = {"patch_size": 14, "min_tokens": 16, "max_tokens": 16384}


@dataclass(frozen=True)
class Preset:
    """A model by its configuration.

    about: what it is, in a line.
    config, preprocessor: fields of `config.json` and `preprocessor_config.json`.
    """

    about: str
    config: Fields
    preprocessor: Fields


def _llava(about: str, text: Fields) -> Preset:
    """CLIP ViT-L/14 at 336 pixels, 8 frames of 12 x 12 tokens, as the paper tuned it."""
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    }
    config = {
        "model_type": "llava_next",
        "image_token_index": 32000,
        "pooling_shape": [8, 12, 12],
        "text_config": {"model_type": "llama", **text},
        "vision_config": vision,
    }
    return Preset(about, config, CLIP_FRAMES)


def _llama(width: int, mlp: int, layers: int, heads: int, kv: int, vocabulary: int) -> Fields:
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
    }


def _qwen2_5_vl(about: str, text: Fields, vision_mlp: int, *, tied: bool = False) -> Preset:
    config = {
        "model_type": "qwen2_5_vl",
        **text,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 128000,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": {
            "depth": 32,
            "hidden_act": "silu",
            "hidden_size": 1280,
            "intermediate_size": vision_mlp,
            "num_heads": 16,
            "out_hidden_size": text["hidden_size"],
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    }
    return Preset(about, config, QWEN_PATCHES)


def _qwen2(width: int, mlp: int, layers: int, heads: int, kv: int, vocabulary: int) -> Fields:
    return {
        **_llama(width, mlp, layers, heads, kv, vocabulary),
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "use_sliding_window": False,
    }


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "llava-next-7b-video-ft": _llava(
            "LLaVA-NeXT-7B-Video-FT: Llama 7B, 8 frames of 144 tokens",
            _llama(4096, 11008, 32, 32, 32, 32064),
        ),
        "llava-next-13b-video-ft": _llava(
            "LLaVA-NeXT-13B-Video-FT: Llama 13B, 8 frames of 144 tokens",
            _llama(5120, 13824, 40, 40, 40, 32064),
        ),
        "llava-next-34b-video": _llava(
            "PLLaVA-34B: Yi 34B (a Llama), 8 frames of 144 tokens",
            _llama(7168, 20480, 60, 56, 8, 64064),
        ),
        "mini-internvl-4b-video-ft": Preset(
            "Mini-InternVL-4B-Video-FT: Phi-3 mini, 8 frames of 256 tokens",
            {
                "model_type": "internvl_chat",
                "template": "phi3-chat",
                "force_image_size": 448,
                "downsample_ratio": 0.5,
                "ps_version": "v2",
                "llm_config": {"model_type": "phi3", **_llama(3072, 8192, 32, 32, 32, 32020)},
                "vision_config": {
                    "model_type": "intern_vit_6b",
                    "hidden_size": 1024,
                    "intermediate_size": 4096,
                    "num_hidden_layers": 24,
                    "num_attention_heads": 16,
                    "image_size": 448,
                    "patch_size": 14,
                    "norm_type": "layer_norm",
                    "qkv_bias": True,
                    "qk_normalization": False,
                },
            },
            INTERN_FRAMES,
        ),
        "videollama3-7b": Preset(
            "VideoLLaMA3-7B: Qwen2.5 7B, tokens by the frames' size",
            {
                "model_type": "videollama3_qwen2",
                **_qwen2(3584, 18944, 28, 28, 4, 152064),
                "image_token_index": 151665,
                "mm_projector_type": "mlp2x_gelu",
                "vision_encoder_config": {
                    "model_type": "videollama3_vision_encoder",
                    "hidden_size": 1152,
                    "intermediate_size": 4304,
                    "num_attention_heads": 16,
                    "num_hidden_layers": 27,
                    "patch_size": 14,
                },
            },
            NAVIT_PATCHES,
        ),
        "qwen2.5-vl-3b": _qwen2_5_vl(
            "Qwen2.5-VL-3B-Instruct", _qwen2(2048, 11008, 36, 16, 2, 151936), 3420, tied=True
        ),
        "qwen2.5-vl-7b": _qwen2_5_vl(
            "Qwen2.5-VL-7B-Instruct", _qwen2(3584, 18944, 28, 28, 4, 152064), 3420
        ),
        "qwen2.5-vl-72b": _qwen2_5_vl(
            "Qwen2.5-VL-72B-Instruct", _qwen2(8192, 29568, 80, 64, 8, 152064), 3456
        ),
    }
)
