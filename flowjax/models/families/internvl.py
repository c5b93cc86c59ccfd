"""InternVL in its original layout: Mini-InternVL-Chat-4B-V1-5 and -4B-Video-FT, and relatives.

InternViT vision tower, pixel shuffle, and a Phi-3, Qwen, InternLM2 or Llama decoder (Gao et al.
2024, arXiv 2410.16261). One square of every frame; the tiling of large still images does not apply.
"""

from collections.abc import Mapping
from typing import Any, cast, get_args

from flowjax.data.preprocess import FramePreprocessor
from flowjax.data.prompt import Prompt, PromptBuilder, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.activations import read_activation
from flowjax.models.decoder_config import read_decoder
from flowjax.models.families.pllava import SYSTEM
from flowjax.models.pixel_shuffle import PixelShuffleConfig
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.feature_layer import layers_used
from flowjax.models.vision.intern_vit import InternViTConfig, Norm

PLACEHOLDER = "<IMG_CONTEXT>"
DECODERS = ("internlm2", "llama", "phi3", "qwen2", "qwen3")
FRAMES = 8
"""Frames of a video where the configuration gives no number, as that of an image model."""

INTERN_VIT_LAYERS = 48
"""Layers of the vision tower where its configuration gives no number."""

PHI3, CHATML = "phi3-chat", "chatml"
TEMPLATES = {
    "phi3-chat": PHI3,
    "Hermes-2": CHATML,
    "internlm2-chat": CHATML,
    "internvl2_5": CHATML,
}
"""Conversation format by the configuration's `template`."""

UNREAD = (
    Unread(
        (
            "dynamic_image_size", "use_thumbnail", "min_dynamic_patch", "max_dynamic_patch",
            "pad2square",
        ),
        "the tiling of large still images, which videos do not go through",
        "modeling_internvl_chat.py: only the loader of images reads them",
    ),
    Unread(
        ("system_message", "force_eager"),
        "no system text of its own: the prompt's is the template's",
        "configuration_internvl_chat.py: InternVLChatConfig does not read them",
    ),
    Unread(
        ("image_fold",),
        "how training cuts up images",
        "configuration_internvl_chat.py of InternVL3: InternVLChatConfig does not read it",
    ),
    Unread(
        ("tie_word_embeddings",),
        "the tower has no word embeddings",
        "modeling_intern_vit.py: InternVisionModel",
        part="vision_config",
    ),
    Unread(
        ("use_moe",),
        "the released tower has no experts",
        "configuration_intern_vit.py of InternVL3: InternVisionConfig does not read it",
        part="vision_config",
        at=False,
    ),
    Unread(
        (
            "num_experts", "num_routed_experts", "num_shared_experts", "moe_intermediate_size",
            "shared_expert_intermediate_size", "moe_coeff_ratio", "moe_output_scale",
            "capacity_factor", "eval_capacity_factor", "laux_allreduce", "noisy_gate_policy",
            "use_residual", "use_rts", "use_weighted_residual", "moe_config", "ep_size",
        ),
        "of experts, which there are none of",
        "configuration_intern_vit.py of InternVL3: InternVisionConfig does not read them",
        part="vision_config",
        when=("use_moe", False),
    ),
)  # fmt: skip

ONLY_TOKENIZER_KNOWS = -1
"""Placeholder where the configuration gives none: the tokenizer's id is one of the vocabulary."""


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of the released code."""
    top = HFConfig(fields, f"{source}: ", UNREAD)
    template = top.take("template", str)
    if template not in TEMPLATES:
        raise FlowjaxError(
            f"{top.name('template')} is {template!r}; the conversation formats are "
            f"{', '.join(TEMPLATES)}"
        )
    decoder = read_decoder(top.nested("llm_config"), among=DECODERS)
    top.expect("hidden_size", decoder.width)
    top.expect("tie_word_embeddings", decoder.tied_embeddings)
    vision = read_intern_vit(
        top.nested("vision_config"),
        top.take("select_layer", int, -1),
        top.name("select_layer"),
    )
    size = top.positive("force_image_size", vision.image_size)
    if size != vision.image_size:
        raise FlowjaxError(
            f"{top.name('force_image_size')} is {size}, but the position embeddings are for "
            f"{vision.image_size}, vision_config.image_size; resizing them is not supported"
        )
    version = top.take("ps_version", str, "v1")
    if version not in ("v1", "v2"):
        raise FlowjaxError(f"{top.name('ps_version')} is {version!r}; it must be 'v1' or 'v2'")
    projector = PixelShuffleConfig(
        inputs=vision.width,
        outputs=decoder.width,
        grid=vision.grid,
        block=read_block(top, vision),
        transposed=version == "v1",
        activation="gelu",
    )
    frames = read_frames(top, projector)
    placeholder = top.take("img_context_token_id", int, ONLY_TOKENIZER_KNOWS)
    top.expect("use_backbone_lora", 0)
    top.expect("use_llm_lora", 0)
    top.finish()
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=projector,
        frames=frames,
        tokens_per_frame=projector.tokens_per_frame,
        placeholder=placeholder,
        conversation=TEMPLATES[template],
    )


def read_intern_vit(vision: HFConfig, feature_layer: int, feature_field: str) -> InternViTConfig:
    """Read the vision tower's configuration, with layers up to the feature layer only.

    `feature_layer`, called `feature_field` in errors, is as in `layers_used`.
    """
    vision.expect("model_type", "intern_vit_6b")
    layers = vision.positive("num_hidden_layers", INTERN_VIT_LAYERS)
    eps = vision.positive_float("layer_norm_eps", 1e-6)
    config = InternViTConfig(
        width=vision.positive("hidden_size", 3200),
        mlp_width=vision.positive("intermediate_size", 12800),
        layers=layers_used(feature_layer, layers, feature_field),
        heads=vision.positive("num_attention_heads", 25),
        image_size=vision.positive("image_size", 224),
        patch_size=vision.positive("patch_size", 14),
        channels=vision.positive("num_channels", 3),
        norm=read_norm(vision, "rms_norm"),
        norm_eps=eps,
        qkv_bias=vision.take("qkv_bias", bool, False),
        qk_norm_eps=eps if vision.take("qk_normalization", bool, True) else None,
        activation=read_activation(
            vision.take("hidden_act", str, "gelu"), vision.name("hidden_act")
        ),
    )
    vision.finish()
    check_intern_vit(config, vision)
    return config


def vision_layers(vision: Mapping[str, Any]) -> int:
    """Layers of the vision tower, those after the feature layer included."""
    return HFConfig(vision, "vision_config.").positive("num_hidden_layers", INTERN_VIT_LAYERS)


def read_norm(vision: HFConfig, default: Norm) -> Norm:
    """Take `norm_type`."""
    name = vision.take("norm_type", str, default)
    if name not in get_args(Norm):
        raise FlowjaxError(
            f"{vision.name('norm_type')} is {name!r}; it must be one of {', '.join(get_args(Norm))}"
        )
    return cast(Norm, name)


def check_intern_vit(config: InternViTConfig, vision: HFConfig) -> None:
    """Refuse sizes that do not divide each other, and images that are not in colour."""
    if config.width % config.heads:
        raise FlowjaxError(
            f"{vision.name('hidden_size')} is {config.width}; it must be a multiple of "
            f"num_attention_heads, {config.heads}"
        )
    if config.image_size % config.patch_size:
        raise FlowjaxError(
            f"{vision.name('image_size')} is {config.image_size}; it must be a multiple of "
            f"patch_size, {config.patch_size}"
        )
    if config.channels != 3:
        raise FlowjaxError(f"{vision.name('num_channels')} is {config.channels}; it must be 3")


def read_block(top: HFConfig, vision: InternViTConfig) -> int:
    """Take `downsample_ratio` as patches along a side of the block that pixel shuffle joins."""
    ratio = top.positive_float("downsample_ratio", 0.5)
    block = round(1 / ratio)
    if block < 1 or 1 / block != ratio or vision.grid % block:
        raise FlowjaxError(
            f"{top.name('downsample_ratio')} is {ratio}; it must be 1 / b where b divides the "
            f"{vision.grid} patches along a side of a frame"
        )
    return block


def read_frames(top: HFConfig, projector: PixelShuffleConfig) -> int:
    """Take the number of frames; a pooling shape must be the one that pixel shuffle gives."""
    frames = top.positive("num_frames", FRAMES)
    side = projector.grid // projector.block
    if "pooling_shape" in top and top.shape("pooling_shape", 3) != (frames, side, side):
        raise FlowjaxError(
            f"{top.name('pooling_shape')} must be {[frames, side, side]} in this model: frames, "
            "and rows and columns of video tokens"
        )
    return frames


def write_frames(builder: PromptBuilder, config: VideoLLMConfig) -> None:
    """Append "Frame1: <img>" and a frame's tokens, for every frame, with line feeds between them.

    All of it belongs to the frames.
    """
    assert config.tokens_per_frame is not None
    for index in range(config.frames):
        frame = f"frame_{index}"
        line_feed = "\n" if index else ""
        builder.text(frame, f"{line_feed}Frame{index + 1}: <img>")
        builder.video(PLACEHOLDER, [(frame, config.tokens_per_frame)])
        builder.text(frame, "</img>")


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The conversation format that goes with the decoder; see `phi3_prompt`, `chatml_prompt`."""
    del shape  # every video has as many tokens
    return (
        phi3_prompt(config, question)
        if config.conversation == PHI3
        else chatml_prompt(config, question, f"<|im_start|>system\n{SYSTEM.strip()}<|im_end|>\n")
    )


def phi3_prompt(config: VideoLLMConfig, question: Question) -> Prompt:
    """The format of the published evaluation (mode `eval_mvbench_phi3`); one video token."""
    assert config.tokens_per_frame is not None
    builder = PromptBuilder()
    builder.text("system", SYSTEM + " <|user|>\n<img>")
    builder.video(
        PLACEHOLDER,
        [(f"frame_{index}", config.tokens_per_frame) for index in range(config.frames)],
    )
    builder.text("instruction", "</img>\n <|user|>\n")
    builder.question(question)
    choose = " \nOnly give the best option. <|assistant|>\nBest option:("
    builder.text("instruction", choose if question.options else " <|assistant|>\n")
    return builder.build()


def chatml_prompt(config: VideoLLMConfig, question: Question, system: str) -> Prompt:
    """The format of Qwen's relatives, a numbered image for every frame, after the text `system`."""
    builder = PromptBuilder()
    builder.text("system", f"{system}<|im_start|>user\n")
    write_frames(builder, config)
    builder.text("instruction", "\n")
    builder.question(question)
    builder.chatml_answer(question)
    return builder.build()


FAMILY = Family(
    name="internvl",
    accepts=lambda fields: fields.get("model_type") == "internvl_chat",
    read_config=read_config,
    read_preprocessor=FramePreprocessor.from_config,
    prompt=prompt,
    pathways=("mini-internvl-4b",),
)
