"""VideoLLaMA3 (Zhang et al. 2025, arXiv 2501.13106) as first released: VideoLLaMA3-7B and -2B.

SigLIP-NaViT vision tower on frames of any size, 2 x 2 merging, two-layer projector, Qwen2 decoder.

`_attn_implementation` of `config.json` says which of the released code's vision attentions is
computed. With `flash_attention_2`, as the release infers and the default here, and `sdpa`, frames
do not see each other; `eager`, as published analyses used it, adds the mask of frames to the scores
(see `SiglipNavitConfig.across_frames`). `flowjax convert --vision-attention` sets it.
"""

from collections.abc import Mapping
from typing import Any

from flowjax.data.frame_rate import ByRate
from flowjax.data.preprocess import PatchPreprocessor
from flowjax.data.prompt import Prompt, PromptBuilder, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.activations import read_activation
from flowjax.models.decoder_config import read_qwen2
from flowjax.models.projector import MlpProjectorConfig
from flowjax.models.qwen_vl_config import axial_theta, block_grid
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.siglip_navit import SiglipNavitConfig

MODEL_TYPE = "videollama3_qwen2"
PLACEHOLDER = "<image>"
FRAMES = 16
"""Frames of a video where `num_frames` is not in the configuration, which is not in released ones.

The released processor takes a frame a second instead, so that their number differs by video.
"""

VISION_ATTENTION = {"flash_attention_2": False, "sdpa": False, "eager": True}
"""Whether patches read those of other frames, by implementation of attention; the default first."""

INSTRUCTION = (
    "Answer with the option's letter from the given choices directly and only give the best option."
)

UNREAD = (
    Unread(
        (
            "image_aspect_ratio", "image_size", "image_token_length", "is_alignment", "llm_lr",
            "max_frames", "mm_projector_lr", "vision_encoder_lr",
        ),
        "settings of the training code",
        "VideoLLaMA3's release: Videollama3Qwen2Config does not read them",
    ),
)  # fmt: skip


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of the released code."""
    # The decoder's fields are on the top level, among the others.
    top = HFConfig({**fields, "model_type": "qwen2"}, f"{source}: ", UNREAD)
    encoder = top.take("vision_encoder", str, "")
    if encoder and top.peek("vision_encoder_config") is None:
        raise FlowjaxError(
            f"{top.name('vision_encoder_config')} is missing; put in the config.json of {encoder}"
        )
    attention = top.take("_attn_implementation", str, next(iter(VISION_ATTENTION)))
    if attention not in VISION_ATTENTION:
        raise FlowjaxError(
            f"{top.name('_attn_implementation')} is {attention!r}; it must be one of "
            f"{', '.join(VISION_ATTENTION)}"
        )
    vision = read_siglip_navit(
        top.nested("vision_encoder_config"),
        "videollama3_vision_encoder",
        across_frames=VISION_ATTENTION[attention],
    )
    frames = top.positive("num_frames", FRAMES)
    placeholder = top.positive("image_token_index")
    top.expect("mm_projector_type", "mlp2x_gelu")
    top.take("use_token_compression", bool, True)  # every token of a frame is kept here
    decoder = read_qwen2(top)
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=MlpProjectorConfig(vision.width, decoder.width, "gelu"),
        frames=frames,
        tokens_per_frame=None,
        placeholder=placeholder,
    )


def read_siglip_navit(
    vision: HFConfig, model_type: str, *, across_frames: bool
) -> SiglipNavitConfig:
    """Read the vision tower's configuration.

    Raises:
        FlowjaxError: names the field that is missing, unknown or not supported.
    """
    vision.expect("model_type", model_type)
    config = SiglipNavitConfig(
        width=vision.positive("hidden_size", 768),
        mlp_width=vision.positive("intermediate_size", 3072),
        layers=vision.positive("num_hidden_layers", 12),
        heads=vision.positive("num_attention_heads", 12),
        patch_size=vision.positive("patch_size", 16),
        channels=vision.positive("num_channels", 3),
        norm_eps=vision.positive_float("layer_norm_eps", 1e-6),
        activation=read_activation(
            vision.take("hidden_act", str, "gelu_pytorch_tanh"), vision.name("hidden_act")
        ),
        rope_theta=axial_theta(vision),
        across_frames=across_frames,
    )
    vision.finish()
    if config.width % (4 * config.heads):
        raise FlowjaxError(
            f"{vision.name('hidden_size')} is {config.width}; it must be a multiple of 4 * "
            f"num_attention_heads, {4 * config.heads}"
        )
    if config.channels != 3:
        raise FlowjaxError(f"{vision.name('num_channels')} is {config.channels}; it must be 3")
    return config


def conversation(
    vision: SiglipNavitConfig, placeholder: str, question: Question, shape: VideoShape
) -> Prompt:
    """The released chat template, with the question as the published analysis writes it.

    Timestamps and commas between frames belong to the frames; a comma to the frame after it.

    Raises:
        FlowjaxError: the preprocessor's patches are not those that the vision tower reads.
    """
    block = shape.pixels[3]  # how many patches are merged is the preprocessor's to say
    _, rows, columns = block_grid(shape, block, vision.channels * vision.patch_size**2)
    builder = PromptBuilder()
    builder.text("system", "<|im_start|>user\n")
    for index, seconds in enumerate(shape.timestamps):
        comma = "," if index else ""
        builder.text(f"frame_{index}", f"{comma}Time {seconds:.1f}s:")
        builder.video(placeholder, [(f"frame_{index}", rows * columns)])
    builder.text("instruction", "\n")
    builder.question(question, line_feeds=True)
    choose = INSTRUCTION if question.options else ""
    builder.text("instruction", f"{choose}<|im_end|>\n<|im_start|>assistant\n")
    return builder.build()


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """See `conversation`."""
    assert isinstance(config.vision, SiglipNavitConfig)
    return conversation(config.vision, PLACEHOLDER, question, shape)


FAMILY = Family(
    name="videollama3",
    accepts=lambda fields: fields.get("model_type") == MODEL_TYPE,
    read_config=read_config,
    read_preprocessor=PatchPreprocessor.from_config,
    prompt=prompt,
    by_rate=ByRate(most=180),
    pathways=("videollama3-7b",),
    vision_attention=tuple(VISION_ATTENTION),
)
