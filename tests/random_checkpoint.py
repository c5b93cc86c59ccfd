"""A small PLLaVA checkpoint in Hugging Face format with random weights and a real tokenizer.

For tests of the pipeline alone; it knows nothing.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from flowjax_experiments.shapes.tokenizer import train_tokenizer

NOTE = "random weights: shows that the pipeline works, not how a trained model behaves"

FRAMES, GRID, LAYERS, WIDTH, VISION_LAYERS, VISION_WIDTH = 8, 4, 8, 128, 3, 64
IMAGE, PATCH = 56, 14


def write_random_checkpoint(folder: Path, corpus: list[str], seed: int = 0) -> None:
    """Write the checkpoint into `folder`; the tokenizer is trained on `corpus`."""
    folder.mkdir(parents=True)
    tokenizer = train_tokenizer(corpus)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = checkpoint_config(tokenizer)
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
    """Every tensor of the checkpoint by its Hugging Face key, float32."""
    rng = np.random.default_rng(seed)
    text, vision = config["text_config"], config["vision_config"]
    weights: dict[str, np.ndarray] = {}

    def linear(name: str, outputs: int, inputs: int, *, bias: bool) -> None:
        weights[f"{name}.weight"] = rng.standard_normal((outputs, inputs)) * inputs**-0.5
        if bias:
            weights[f"{name}.bias"] = rng.standard_normal(outputs) * 0.02

    def norm(name: str, width: int, *, bias: bool) -> None:
        weights[f"{name}.weight"] = 1 + rng.standard_normal(width) * 0.02
        if bias:
            weights[f"{name}.bias"] = rng.standard_normal(width) * 0.02

    tower, width = "vision_tower.vision_model.", vision["hidden_size"]
    tokens = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    weights[f"{tower}embeddings.class_embedding"] = rng.standard_normal(width) * 0.5
    weights[f"{tower}embeddings.position_embedding.weight"] = (
        rng.standard_normal((tokens, width)) * 0.5
    )
    patch = (3, vision["patch_size"], vision["patch_size"])
    kernel = rng.standard_normal((width, *patch)) * np.prod(patch) ** -0.5
    weights[f"{tower}embeddings.patch_embedding.weight"] = kernel
    norm(f"{tower}pre_layrnorm", width, bias=True)
    norm(f"{tower}post_layernorm", width, bias=True)
    for index in range(vision["num_hidden_layers"]):
        layer = f"{tower}encoder.layers.{index}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}self_attn.{name}", width, width, bias=True)
        linear(f"{layer}mlp.fc1", vision["intermediate_size"], width, bias=True)
        linear(f"{layer}mlp.fc2", width, vision["intermediate_size"], bias=True)
        norm(f"{layer}layer_norm1", width, bias=True)
        norm(f"{layer}layer_norm2", width, bias=True)

    hidden = text["hidden_size"]
    linear("multi_modal_projector.linear_1", hidden, width, bias=True)
    linear("multi_modal_projector.linear_2", hidden, hidden, bias=True)
    embedding = rng.standard_normal((text["vocab_size"], hidden))
    weights["language_model.model.embed_tokens.weight"] = embedding
    norm("language_model.model.norm", hidden, bias=False)
    linear("language_model.lm_head", text["vocab_size"], hidden, bias=False)
    for index in range(text["num_hidden_layers"]):
        layer = f"language_model.model.layers.{index}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            linear(f"{layer}self_attn.{name}", hidden, hidden, bias=False)
        linear(f"{layer}mlp.gate_proj", text["intermediate_size"], hidden, bias=False)
        linear(f"{layer}mlp.up_proj", text["intermediate_size"], hidden, bias=False)
        linear(f"{layer}mlp.down_proj", hidden, text["intermediate_size"], bias=False)
        norm(f"{layer}input_layernorm", hidden, bias=False)
        norm(f"{layer}post_attention_layernorm", hidden, bias=False)
    return {name: value.astype(np.float32) for name, value in weights.items()}
