"""PLLaVA (Xu et al. 2024, arXiv 2404.16994): LLaVA-NeXT-7B/13B-Video-FT.

CLIP vision tower, two-layer projector, adaptive average pooling over frames, Llama decoder.
"""

from collections.abc import Mapping
from typing import Any

from flowjax.data.preprocess import FramePreprocessor
from flowjax.data.prompt import Prompt, PromptBuilder, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.activations import read_activation
from flowjax.models.decoder_config import decoder_kind, read_decoder
from flowjax.models.llava_config import DECODERS, turns
from flowjax.models.projector import PoolingProjectorConfig
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.clip import ClipConfig
from flowjax.models.vision.feature_layer import layers_used

SYSTEM = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail "
    "and movement of objects, and the action and pose of persons. Based on your observations, "
    "select the best option that accurately addresses the question.\n"
)
PLACEHOLDER = "<image>"
CLIP_LAYERS = 12
"""Layers of the vision tower where its configuration gives no number."""

CLIP_UNREAD = (
    Unread(
        ("projection_dim", "vocab_size"),
        "of the head that compares images with text, which is not used",
        "transformers.CLIPVisionModel",
        part="vision_config",
    ),
    Unread(
        ("tie_word_embeddings",),
        "the tower has no word embeddings",
        "transformers.CLIPVisionModel",
        part="vision_config",
    ),
)
"""Of the vision tower."""

UNREAD = (
    *CLIP_UNREAD,
    Unread(("force_eager",), "which code computes the attention", "PLLaVA's release"),
    Unread(
        ("image_grid_pinpoints", "use_image_newline_parameter", "image_seq_length"),
        "the tiling of large still images, which videos do not go through",
        "PLLaVA's release; transformers.LlavaConfig, LlavaNextConfig",
    ),
)


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of `transformers`."""
    top = HFConfig(fields, f"{source}: ", UNREAD)
    if "pooling_shape" not in top:
        raise FlowjaxError(
            f"{top.name('pooling_shape')} is missing; convert with --pooling-shape T-H-W (frames, "
            "rows and columns of video tokens)"
        )
    text = top.nested("text_config")
    kind = decoder_kind(text, "llama")
    decoder = read_decoder(text, top.take("vocab_size", int, 0), among=DECODERS, absent=kind)
    frames, grid_rows, grid_columns = top.shape("pooling_shape", 3)
    top.expect("num_frames", frames)
    top.expect("vision_feature_select_strategy", "default")
    top.expect("pooling_method", "avg")
    top.expect("use_pooling", True)
    top.expect("multimodal_projector_bias", True)
    top.expect("tie_word_embeddings", decoder.tied_embeddings)
    feature_layer = top.take("vision_feature_layer", int, -2)
    vision = read_clip(top.nested("vision_config"), feature_layer, top.name("vision_feature_layer"))
    top.expect("frame_shape", [vision.grid, vision.grid])
    projector = PoolingProjectorConfig(
        inputs=vision.width,
        outputs=decoder.width,
        grid=(frames, vision.grid, vision.grid),
        pooling=(frames, grid_rows, grid_columns),
        activation=read_activation(
            top.take("projector_hidden_act", str, "gelu"), top.name("projector_hidden_act")
        ),
    )
    placeholder = top.positive("image_token_index")
    top.finish()
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=projector,
        frames=frames,
        tokens_per_frame=grid_rows * grid_columns,
        placeholder=placeholder,
        conversation=kind,
    )


def read_clip(
    vision: HFConfig, feature_layer: int, feature_field: str, *, class_token: bool = False
) -> ClipConfig:
    """Read a CLIP vision configuration, with layers up to the feature layer only.

    `feature_layer` indexes hidden states: 0 is the embeddings, negative counts from the end.
    `class_token` says whether the model reads that token's feature.
    """
    vision.expect("model_type", "clip_vision_model")
    layers = vision.positive("num_hidden_layers", CLIP_LAYERS)
    used = layers_used(feature_layer, layers, feature_field)
    config = ClipConfig(
        width=vision.positive("hidden_size", 768),
        mlp_width=vision.positive("intermediate_size", 3072),
        layers=used,
        heads=vision.positive("num_attention_heads", 12),
        image_size=vision.positive("image_size", 224),
        patch_size=vision.positive("patch_size", 32),
        channels=vision.positive("num_channels", 3),
        norm_eps=vision.positive_float("layer_norm_eps", 1e-5),
        activation=read_activation(
            vision.take("hidden_act", str, "quick_gelu"), vision.name("hidden_act")
        ),
        class_token=class_token,
    )
    vision.finish()
    if config.width % config.heads or config.image_size % config.patch_size:
        raise FlowjaxError(
            f"{vision.name('hidden_size')} must be a multiple of num_attention_heads, and "
            "image_size of patch_size"
        )
    return config


def clip_layers(vision: Mapping[str, Any]) -> int:
    """Layers of a CLIP tower, those after the feature layer included."""
    return HFConfig(vision, "vision_config.").positive("num_hidden_layers", CLIP_LAYERS)


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The conversation format of the published evaluation (mode `eval_mvbench`).

    An open question stands alone before the assistant's turn. With a Mistral decoder, the turns are
    marked as in LLaVA-v1.6's template for Mistral.
    """
    assert config.tokens_per_frame is not None
    del shape  # every video has as many tokens
    builder = PromptBuilder()
    user, answer = turns(config.conversation)
    builder.text("system", f"{SYSTEM} {user}")
    builder.video(
        PLACEHOLDER,
        [(f"frame_{index}", config.tokens_per_frame) for index in range(config.frames)],
    )
    builder.text("instruction", "\n" if config.conversation == "mistral" else f"\n {user}")
    builder.question(question)
    choose = f" \nOnly give the best option.{answer}Best option:("
    builder.text("instruction", choose if question.options else answer)
    return builder.build()


FAMILY = Family(
    name="pllava",
    accepts=lambda fields: (
        fields.get("model_type") in ("llava", "llava_next") and "mm_vision_tower" not in fields
    ),
    read_config=read_config,
    read_preprocessor=FramePreprocessor.from_config,
    prompt=prompt,
    pathways=("llava-next-7b", "llava-next-13b"),
)
