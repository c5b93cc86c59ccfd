"""LLaVA-OneVision in the layout of `transformers` (Li et al. 2024, arXiv 2408.03326).

SigLIP vision tower, two-layer projector, every frame resized to half its rows and columns of
features, one closing token after the video, Qwen2 decoder.
"""

from collections.abc import Mapping
from typing import Any

from flowjax.data.preprocess import SquarePreprocessor
from flowjax.data.prompt import Prompt, PromptBuilder, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.activations import read_activation
from flowjax.models.decoder_config import read_qwen2
from flowjax.models.llava_config import (
    STILLS,
    read_frames,
    read_placeholder,
    read_projector_activation,
    read_tied,
)
from flowjax.models.registry import Family
from flowjax.models.spatial_pool import NewlinePoolConfig
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.feature_layer import layers_used
from flowjax.models.vision.siglip import SiglipConfig

PLACEHOLDER = "<video>"
SIGLIP_LAYERS = 12
"""Layers of the vision tower where its configuration gives no number."""

SIGLIP_UNREAD = (
    Unread(
        ("vision_use_head", "tie_word_embeddings"),
        "a pooling head over the last layer, and word embeddings, which the tower lacks",
        "transformers.SiglipVisionModel: LLaVA reads its hidden states",
        part="vision_config",
    ),
)
"""Of the vision tower."""

UNREAD = (*STILLS, *SIGLIP_UNREAD)


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of `transformers`."""
    top = HFConfig(fields, f"{source}: ", UNREAD)
    text = read_qwen2(top.nested("text_config"), top.take("vocab_size", int, 0))
    decoder = read_tied(top, text)
    vision = read_siglip(
        top.nested("vision_config"),
        top.take("vision_feature_layer", int, -1),
        top.name("vision_feature_layer"),
    )
    # The tower has no class token to drop.
    top.expect("vision_feature_select_strategy", "full")
    projector = NewlinePoolConfig(
        inputs=vision.width,
        outputs=decoder.width,
        grid=vision.grid,
        stride=2,
        mode="bilinear",
        newline="one_token",
        activation=read_projector_activation(top),
    )
    frames = read_frames(top, projector.side)
    placeholder = read_placeholder(top, 151647, decoder.vocabulary)
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


def read_siglip(vision: HFConfig, feature_layer: int, feature_field: str) -> SiglipConfig:
    """Read a SigLIP vision configuration, with layers up to the feature layer only.

    `feature_layer`, called `feature_field` in errors, is as in `layers_used`.
    """
    vision.expect("model_type", "siglip_vision_model")
    layers = vision.positive("num_hidden_layers", SIGLIP_LAYERS)
    used = layers_used(feature_layer, layers, feature_field)
    return read_sizes(vision, used, width=768, heads=12, patch=16, output_norm=False)


def read_sizes(
    vision: HFConfig, layers: int, *, width: int, heads: int, patch: int, output_norm: bool
) -> SiglipConfig:
    """The rest of a SigLIP configuration; `width`, `heads` and `patch` where it says nothing.

    Raises:
        FlowjaxError: sizes that do not fit each other, or a field that is not supported.
    """
    config = SiglipConfig(
        width=vision.positive("hidden_size", width),
        mlp_width=vision.positive("intermediate_size", 3072),
        layers=layers,
        heads=vision.positive("num_attention_heads", heads),
        image_size=vision.positive("image_size", 224),
        patch_size=vision.positive("patch_size", patch),
        channels=vision.positive("num_channels", 3),
        norm_eps=vision.positive_float("layer_norm_eps", 1e-6),
        activation=read_activation(
            vision.take("hidden_act", str, "gelu_pytorch_tanh"), vision.name("hidden_act")
        ),
        output_norm=output_norm,
    )
    vision.finish()
    if config.width % config.heads or config.image_size < config.patch_size:
        raise FlowjaxError(
            f"{vision.name('hidden_size')} must be a multiple of num_attention_heads, and "
            "image_size at least patch_size"
        )
    return config


def siglip_layers(vision: Mapping[str, Any]) -> int:
    """Layers of a SigLIP tower, those after the feature layer included."""
    return HFConfig(vision, "vision_config.").positive("num_hidden_layers", SIGLIP_LAYERS)


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The conversation that LLaVA's code trains and asks with, one video before the question.

    The released chat template has no line feeds after the roles and turns. The closing token of the
    video belongs to the last frame.
    """
    assert isinstance(config.projector, NewlinePoolConfig)
    del shape  # every video has as many tokens
    builder = PromptBuilder()
    builder.text("system", "<|im_start|>user\n")
    builder.video(PLACEHOLDER, config.projector.frames(config.frames))
    builder.text("instruction", "\n")
    builder.question(question)
    builder.chatml_answer(question)
    return builder.build()


FAMILY = Family(
    name="llava_onevision",
    accepts=lambda fields: fields.get("model_type") == "llava_onevision",
    read_config=read_config,
    read_preprocessor=SquarePreprocessor.from_config,
    prompt=prompt,
)
