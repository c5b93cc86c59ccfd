"""InternVL2.5, 3 and 3.5 in the layout of `transformers` (Zhu et al. 2025, arXiv 2504.10479).

InternViT vision tower, pixel shuffle, and a Qwen2, Qwen3 or Llama decoder. One square of every
frame; the tiling of large still images does not apply.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flowjax.data.preprocess import SquarePreprocessor
from flowjax.data.prompt import Prompt, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.activations import read_activation
from flowjax.models.decoder_config import read_decoder
from flowjax.models.families.internvl import (
    chatml_prompt,
    check_intern_vit,
    read_block,
    read_frames,
    read_norm,
)
from flowjax.models.pixel_shuffle import PixelShuffleConfig
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.feature_layer import layers_used
from flowjax.models.vision.intern_vit import InternViTConfig

DECODERS = ("llama", "qwen2", "qwen3")
VISION_LAYERS = 24
"""Layers of the vision tower where its configuration gives no number."""

QK_NORM_EPS = 1e-6
"""Of the norms of the vision tower's queries and keys, which no configuration sets."""

UNREAD = (
    Unread(
        ("image_seq_length", "video_token_id"),
        "the processor's count of tokens; videos are written with the token of images",
        "transformers.InternVLModel, 4.52 to 5: videos pass as images",
    ),
    Unread(
        ("layer_scale_init_value", "hidden_dropout_prob", "projection_dropout"),
        "starting values and dropout, which only training reads",
        "transformers.InternVLVisionConfig",
        part="vision_config",
    ),
    Unread(
        ("tie_word_embeddings",),
        "the tower has no word embeddings",
        "transformers.InternVLVisionModel",
        part="vision_config",
    ),
)


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of `transformers`."""
    top = HFConfig(fields, f"{source}: ", UNREAD)
    decoder = read_decoder(top.nested("text_config"), among=DECODERS, absent="qwen2")
    # The whole model's goes before the decoder's; files of `transformers` 4 may lack it.
    tied = top.take("tie_word_embeddings", bool, decoder.tied_embeddings)
    decoder = dataclasses.replace(decoder, tied_embeddings=tied)
    vision = read_internvl_vision(
        top.nested("vision_config"),
        top.take("vision_feature_layer", int, -1),
        top.name("vision_feature_layer"),
    )
    top.expect("vision_feature_select_strategy", "default")
    projector = PixelShuffleConfig(
        inputs=vision.width,
        outputs=decoder.width,
        grid=vision.grid,
        block=read_block(top, vision),
        transposed=False,
        activation=read_activation(
            top.take("projector_hidden_act", str, "gelu"), top.name("projector_hidden_act")
        ),
    )
    frames = read_frames(top, projector)
    placeholder = top.positive("image_token_id", 151667)
    top.finish()
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=projector,
        frames=frames,
        tokens_per_frame=projector.tokens_per_frame,
        placeholder=placeholder,
    )


def read_internvl_vision(
    vision: HFConfig, feature_layer: int, feature_field: str
) -> InternViTConfig:
    """Read the vision tower's configuration, with layers up to the feature layer only.

    `feature_layer`, called `feature_field` in errors, is as in `layers_used`.
    """
    vision.expect("model_type", "internvl_vision")
    layers = vision.positive("num_hidden_layers", VISION_LAYERS)
    config = InternViTConfig(
        width=vision.positive("hidden_size", 1024),
        mlp_width=vision.positive("intermediate_size", 4096),
        layers=layers_used(feature_layer, layers, feature_field),
        heads=vision.positive("num_attention_heads", 16),
        image_size=read_side(vision, "image_size", 448),
        patch_size=read_side(vision, "patch_size", 14),
        channels=vision.positive("num_channels", 3),
        norm=read_norm(vision, "layer_norm"),
        norm_eps=vision.positive_float("layer_norm_eps", 1e-6),
        qkv_bias=vision.take("attention_bias", bool, False),
        qk_norm_eps=QK_NORM_EPS if vision.take("use_qk_norm", bool, False) else None,
        activation=read_activation(
            vision.take("hidden_act", str, "gelu"), vision.name("hidden_act")
        ),
    )
    vision.expect("use_absolute_position_embeddings", True)
    vision.expect("use_mask_token", False)
    # False would add a norm after the last layer.
    vision.expect("use_mean_pooling", True)
    vision.finish()
    check_intern_vit(config, vision)
    return config


def vision_layers(vision: Mapping[str, Any]) -> int:
    """Layers of the vision tower, those after the feature layer included."""
    return HFConfig(vision, "vision_config.").positive("num_hidden_layers", VISION_LAYERS)


def read_side(vision: HFConfig, field: str, default: int) -> int:
    """Take the side of a square, given as one number or as two that are equal."""
    if not isinstance(vision.peek(field), list):
        return vision.positive(field, default)
    height, width = vision.shape(field, 2)
    if height != width:
        raise FlowjaxError(f"{vision.name(field)} is {[height, width]}; only squares are supported")
    return height


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The chat template of the released models, with one video before the question."""
    del shape  # every video has as many tokens
    return chatml_prompt(config, question, system="")


FAMILY = Family(
    name="internvl_native",
    accepts=lambda fields: fields.get("model_type") == "internvl",
    read_config=read_config,
    read_preprocessor=SquarePreprocessor.from_config,
    prompt=prompt,
)
