"""A small PLLaVA checkpoint in Hugging Face format with random weights and a real tokenizer.

For tests of the pipeline alone; it knows nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from flowjax_benchmarks.synthetic import pllava_shapes
from flowjax_experiments.shapes.tokenizer import train_tokenizer

NOTE = "random weights: shows that the pipeline works, not how a trained model behaves"

FRAMES, GRID, LAYERS, WIDTH, VISION_LAYERS, VISION_WIDTH = 8, 4, 8, 128, 3, 64
IMAGE, PATCH = 56, 14


def write_random_checkpoint(
    folder: Path,
    corpus: list[str],
    seed: int = 0,
    *,
    layers: int = LAYERS,
    vision_layers: int = VISION_LAYERS,
    text: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the checkpoint into `folder`; the tokenizer is trained on `corpus`.

    text: other values of the decoder's configuration.
    """
    folder.mkdir(parents=True)
    tokenizer = train_tokenizer(corpus)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = checkpoint_config(tokenizer)
    config["text_config"] |= {"num_hidden_layers": layers, **text}
    config["vision_config"]["num_hidden_layers"] = vision_layers
    files: dict[str, dict[str, Any]] = {
        "config.json": config,
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>"},
        "preprocessor_config.json": preprocessor_config(),
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    save_file(random_weights(config, seed), folder / "model.safetensors", {"format": "pt"})


def checkpoint_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The `config.json` of the checkpoint."""
    vocabulary = tokenizer.get_vocab_size()
    return {
        "architectures": ["PllavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": tokenizer.token_to_id("<image>"),
        "pad_token_id": 0,
        "vocab_size": vocabulary,
        "pooling_method": "avg",
        "use_pooling": True,
        "pooling_shape": [FRAMES, GRID // 2, GRID // 2],
        "frame_shape": [GRID, GRID],
        "num_frames": FRAMES,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": {
            "model_type": "llama",
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "vocab_size": vocabulary,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 2 * VISION_WIDTH,
            "num_hidden_layers": VISION_LAYERS,
            "num_attention_heads": 4,
            "image_size": IMAGE,
            "patch_size": PATCH,
            "projection_dim": VISION_WIDTH,
        },
    }


def preprocessor_config() -> dict[str, Any]:
    """CLIP's preprocessing at the checkpoint's image size."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": IMAGE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": IMAGE, "width": IMAGE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "do_convert_rgb": True,
    }


def random_weights(config: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint by its Hugging Face key, float32, as large as when new."""
    rng = np.random.default_rng(seed)

    def values(key: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = rng.standard_normal(shape)
        if key.endswith(".bias"):
            return noise * 0.02
        if "norm" in key:
            return 1 + noise * 0.02
        if key.endswith("embed_tokens.weight"):
            return noise
        if key.endswith(("class_embedding", "position_embedding.weight")):
            return noise * 0.5
        return noise * np.prod(shape[1:]) ** -0.5

    shapes = pllava_shapes(config)
    return {key: values(key, shape).astype(np.float32) for key, shape in shapes.items()}
