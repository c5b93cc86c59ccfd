"""Tokenizer and configuration of the shapes models, and writing one as a checkpoint."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from tokenizers import Tokenizer

from flowjax.data.shapes import questions as ask
from flowjax.data.shapes.tasks import IMAGE_TASKS, VIDEO_TASKS, Draw, draw_question
from flowjax.models.families import pllava
from flowjax.models.video_llm import VideoLLM, VideoLLMConfig
from flowjax.models.vision.clip import ClipVision
from flowjax_convert.export import export_checkpoint
from flowjax_experiments.shapes.recipe import Recipe
from flowjax_experiments.shapes.tokenizer import save_tokenizer, train_tokenizer

EMBEDDING = 0.5
"""Standard deviation of the token embeddings of a model that is not trained yet."""

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, of pixel values from 0 to 1."""


def shapes_tokenizer() -> Tokenizer:
    """Made from all that a prompt can hold, so that most words are one token."""
    rng = np.random.default_rng(0)
    texts = [
        pllava.SYSTEM,
        " USER: <image>\n USER: Question: Options: ASSISTANT: Describe the video. Which option is",
        "Only give the best option. ASSISTANT:Best option:(",
    ]
    for turn in range(400):
        for task in VIDEO_TASKS | IMAGE_TASKS:
            scene, question = draw_question(task, Draw(rng, test=turn % 2 == 0), turn)
            texts += [question.stem, *question.options, ask.caption(scene)]
    return train_tokenizer(texts)


def model_fields(recipe: Recipe, tokenizer: Tokenizer) -> dict[str, Any]:
    """The `config.json` of both models."""
    grid, vocabulary = recipe.image_size // recipe.patch_size, tokenizer.get_vocab_size()
    return {
        "architectures": ["PllavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": tokenizer.token_to_id(pllava.PLACEHOLDER),
        "pad_token_id": 0,
        "vocab_size": vocabulary,
        "pooling_method": "avg",
        "use_pooling": True,
        "pooling_shape": [recipe.frames, recipe.grid, recipe.grid],
        "frame_shape": [grid, grid],
        "num_frames": recipe.frames,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "text_config": {
            "model_type": "llama",
            "hidden_size": recipe.width,
            "intermediate_size": recipe.mlp_width,
            "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.heads,
            "num_key_value_heads": recipe.heads,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "vocab_size": vocabulary,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": recipe.vision_width,
            "intermediate_size": 2 * recipe.vision_width,
            "num_hidden_layers": recipe.vision_layers,
            "num_attention_heads": 4,
            "image_size": recipe.image_size,
            "patch_size": recipe.patch_size,
            "projection_dim": recipe.vision_width,
        },
    }


def model_config(recipe: Recipe, tokenizer: Tokenizer) -> VideoLLMConfig:
    """The configuration that flowjax reads from `model_fields`."""
    return pllava.read_config(model_fields(recipe, tokenizer), "recipe")


def fresh_model(config: VideoLLMConfig, seed: int) -> VideoLLM:
    """A model with random float32 parameters.

    What a block adds to the residual stream begins small beside the token embeddings (as in GPT-2,
    Radford et al. 2019), so that what a token is can be read in every layer from the first step.
    """
    model = VideoLLM(config, dtype=jnp.dtype(jnp.float32), rngs=nnx.Rngs(seed))
    embedding = model.decoder.embedding.embedding
    embedding[...] = embedding[...] * (EMBEDDING * config.decoder.width**0.5)
    assert isinstance(model.vision, ClipVision)
    for stack, layers in (
        (model.decoder.layers, config.decoder.layers),
        (model.vision.layers, model.vision.config.layers),
    ):
        for last in (stack.output, stack.down):
            last.kernel[...] = last.kernel[...] * (2 * layers) ** -0.5
    return model


def write_checkpoint(folder: Path, model: VideoLLM, recipe: Recipe, tokenizer: Tokenizer) -> None:
    """Write a model in Hugging Face format, in its parameters' dtype, into a new folder."""
    folder.mkdir(parents=True)
    export_checkpoint(model, model_fields(recipe, tokenizer), folder)
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    size = recipe.image_size
    files: dict[str, dict[str, Any]] = {
        "tokenizer_config.json": {
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
        },
        "generation_config.json": {
            "bos_token_id": tokenizer.token_to_id("<s>"),
            "eos_token_id": tokenizer.token_to_id("</s>"),
        },
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": size},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": size, "width": size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(MEAN),
            "image_std": list(STD),
            "do_convert_rgb": True,
        },
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
