"""Tiny checkpoints and one question, the same wherever they are made: NumPy and tokenizers only.

`tests/models/record_release.py` records what a version of `transformers` makes of them, in an
environment of its own; `tests/models/test_releases.py` compares.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
IDS = {text: 256 + index for index, text in enumerate(SPECIAL)}
TOKENS = {
    "image_token_id": IDS["<|image_pad|>"],
    "video_token_id": IDS["<|video_pad|>"],
    "vision_start_token_id": IDS["<|vision_start|>"],
    "vision_end_token_id": IDS["<|vision_end|>"],
}
TEXT = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
QUESTION = "What is under the chair?"
QWEN2_TEXT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    f"<|vision_start|><|video_pad|><|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
QWEN3_TEXT = (
    f"<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>{QUESTION}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
FRAMES = 20
"""At 2 or 3 frames a second, more positions in time than a frame of 3 x 4 blocks has sides."""

ROWS = 12
"""Positions from one whose logits are recorded to the next."""

NEW_TOKENS = 16

PREPROCESSOR = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
LIMITS = {"size": {"shortest_edge": 1, "longest_edge": 10**6}}
SMOLVLM_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>",
    "<global-img>",
)  # fmt: skip
SMOLVLM_PREPROCESSOR = {
    "do_convert_rgb": True,
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "max_image_size": {"longest_edge": 24},
    "resample": 1,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": 96},
    "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 24}},
}


@dataclass(frozen=True)
class Case:
    """One family's tiny checkpoint and prompt.

    text: what goes into the released processor, one placeholder for the video; or the question,
        where the processor writes the rest.
    config: fields of `config.json`, in the form that the release reads.
    preprocessor: of `preprocessor_config.json`.
    special: tokens after those of bytes.
    """

    text: str
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any]
    special: tuple[str, ...] = SPECIAL


CASES = {
    "qwen2_vl": Case(
        QWEN2_TEXT,
        {
            **TEXT,
            **TOKENS,
            "model_type": "qwen2_vl",
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
            "vision_config": {
                "model_type": "qwen2_vl",
                "depth": 3,
                "embed_dim": 32,
                "hidden_size": 32,
                "num_heads": 2,
                "patch_size": 4,
            },
        },
        PREPROCESSOR | LIMITS,
    ),
    "qwen2_5_vl": Case(
        QWEN2_TEXT,
        {
            **TEXT,
            **TOKENS,
            "model_type": "qwen2_5_vl",
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
            "vision_config": {
                "model_type": "qwen2_5_vl",
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 40,
                "num_heads": 2,
                "patch_size": 4,
                "out_hidden_size": 32,
                "window_size": 16,
                "fullatt_block_indexes": [1],
                "tokens_per_second": 2,
            },
        },
        PREPROCESSOR | LIMITS,
    ),
    "qwen3_vl": Case(
        QWEN3_TEXT,
        {
            **TOKENS,
            "model_type": "qwen3_vl",
            "text_config": {
                **{name: value for name, value in TEXT.items() if name != "rope_theta"},
                "model_type": "qwen3_vl_text",
                "head_dim": 8,
                "rope_theta": 1e6,
                "rope_scaling": {
                    "rope_type": "default",
                    "mrope_section": [2, 1, 1],
                    "mrope_interleaved": True,
                },
            },
            "vision_config": {
                "model_type": "qwen3_vl",
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 40,
                "num_heads": 2,
                "patch_size": 4,
                "out_hidden_size": 32,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0, 1],
            },
        },
        PREPROCESSOR | LIMITS,
    ),
    "llava_onevision1_5": Case(
        QWEN2_TEXT,
        {
            **TOKENS,
            "model_type": "llavaonevision1_5",
            "text_config": {
                **TEXT,
                "model_type": "LLaVAOneVision1_5_text",
                "head_dim": 16,
                "use_sliding_window": False,
                "max_window_layers": 3,
            },
            "vision_config": {
                "model_type": "rice_vit",
                "depth": 3,
                "embed_dim": 32,
                "hidden_act": "gelu",
                "hidden_size": 32,
                "intermediate_size": 40,
                "layer_norm_eps": 1e-3,
                "num_heads": 2,
                "patch_size": 4,
                "temporal_patch_size": 1,
                "text_hidden_size": 32,
            },
            "vocab_size": TEXT["vocab_size"],
        },
        PREPROCESSOR | {"temporal_patch_size": 1} | LIMITS,
    ),
    "smolvlm": Case(
        QUESTION,
        {
            "model_type": "smolvlm",
            "image_token_id": 256 + SMOLVLM_SPECIAL.index("<image>"),
            "num_frames": FRAMES,
            "pad_token_id": None,
            "scale_factor": 2,
            "text_config": {**TEXT, "model_type": "llama", "rope_theta": 1e5},
            "vision_config": {
                "model_type": "smolvlm_vision",
                "hidden_size": 32,
                "image_size": 24,
                "intermediate_size": 40,
                "num_attention_heads": 2,
                "num_hidden_layers": 3,
                "patch_size": 4,
            },
        },
        SMOLVLM_PREPROCESSOR,
        SMOLVLM_SPECIAL,
    ),
}


def tokenizer(special: tuple[str, ...] = SPECIAL) -> Tokenizer:
    """A token per byte and per special text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(BPE(vocab={text: i for i, text in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(special))
    return made


def frames() -> np.ndarray:
    """uint8 [frames, 24, 32, 3]: a size that the processors leave as it is."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (FRAMES, 3, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(coarse + rng.integers(-40, 41, coarse.shape), 0, 255).astype(np.uint8)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Float32 tensors that follow from keys and shapes alone, with which every part matters."""
    return {key: _weight(key, shape) for key, shape in shapes.items()}


def _weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if len(shape) == 1:
        # Norms are near 1, and the last one is large, for answers to be clear.
        scale = 3 if key.endswith("model.norm.weight") or "language_model.norm." in key else 1
        near = 1.0 if key.endswith("weight") else 0.0
        return (scale * (near + 0.2 * noise)).astype(np.float32)
    if "embed_tokens" in key or "pos_embed" in key:
        return noise.astype(np.float32)
    sharpness = 2 if "q_proj" in key or "k_proj" in key else 1
    return (sharpness * noise * np.prod(shape[1:]) ** -0.5).astype(np.float32)


def recording(family: str, version: str) -> Path:
    """Where the values of one family in one version are."""
    return Path(__file__).parent / "releases" / f"{family}-{version}.npz"
