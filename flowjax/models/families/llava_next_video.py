"""LLaVA-NeXT-Video in the layout of `transformers` (Zhang et al. 2024, blog post of LLaVA-VL).

CLIP vision tower, pooling of every frame, two-layer projector, Llama or Mistral decoder.
"""

from collections.abc import Mapping
from typing import Any

from flowjax.data.preprocess import CropPreprocessor
from flowjax.data.prompt import Prompt, PromptBuilder, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.decoder_config import decoder_kind, read_decoder
from flowjax.models.families.pllava import CLIP_UNREAD, read_clip
from flowjax.models.llava_config import (
    DECODERS,
    STILLS,
    read_frames,
    read_placeholder,
    read_projector_activation,
    read_tied,
    turns,
)
from flowjax.models.registry import Family
from flowjax.models.spatial_pool import PoolMode, StridedPoolConfig
from flowjax.models.video_llm import VideoLLMConfig

PLACEHOLDER = "<video>"
MODES: Mapping[str, PoolMode] = {"average": "average", "max": "max", "conv": "conv"}

UNREAD = (
    *CLIP_UNREAD,
    *STILLS,
    Unread(
        ("type", "factor"),
        "the released files repeat the scaling of rotary embedding outside of rope_scaling",
        "config.json of llava-hf/LLaVA-NeXT-Video-7B-hf; transformers.LlamaConfig reads neither",
        part="text_config",
    ),
)


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of `transformers`."""
    top = HFConfig(fields, f"{source}: ", UNREAD)
    text = top.nested("text_config")
    kind = decoder_kind(text, "llama")
    decoder = read_decoder(text, top.take("vocab_size", int, 0), among=DECODERS, absent=kind)
    decoder = read_tied(top, decoder)
    vision = read_clip(
        top.nested("vision_config"),
        top.take("vision_feature_layer", int, -2),
        top.name("vision_feature_layer"),
    )
    top.expect("vision_feature_select_strategy", "default")
    # Of a convolution, which must give what the projector takes.
    top.expect("spatial_pool_out_channels", vision.width)
    projector = StridedPoolConfig(
        inputs=vision.width,
        outputs=decoder.width,
        grid=vision.grid,
        stride=top.positive("spatial_pool_stride", 2),
        mode=read_mode(top),
        activation=read_projector_activation(top),
    )
    if projector.side < 1:
        raise FlowjaxError(
            f"{top.name('spatial_pool_stride')} is {projector.stride}; a frame has only "
            f"{vision.grid} rows of patches"
        )
    frames = read_frames(top, projector.side)
    placeholder = read_placeholder(top, 32000, decoder.vocabulary)
    top.finish()
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=projector,
        frames=frames,
        tokens_per_frame=projector.side**2,
        placeholder=placeholder,
        conversation=kind,
    )


def read_mode(top: HFConfig, field: str = "spatial_pool_mode") -> PoolMode:
    """Take the way in which a block of features becomes one."""
    name = top.take(field, str, "average")
    if name not in MODES:
        raise FlowjaxError(f"{top.name(field)} is {name!r}; choose {', '.join(MODES)}")
    return MODES[name]


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The chat template of the released models, with one video before the question.

    That of Vicuna, or with a Mistral decoder that of Mistral's instruction-tuned models.
    """
    assert config.tokens_per_frame is not None
    del shape  # every video has as many tokens
    builder = PromptBuilder()
    user, answer = turns(config.conversation)
    builder.text("system", user)
    builder.video(
        PLACEHOLDER,
        [(f"frame_{index}", config.tokens_per_frame) for index in range(config.frames)],
    )
    builder.text("instruction", "\n")
    builder.question(question)
    choose = f"\nOnly give the best option.{answer} Best option:("
    builder.text("instruction", choose if question.options else answer)
    return builder.build()


FAMILY = Family(
    name="llava_next_video",
    accepts=lambda fields: fields.get("model_type") == "llava_next_video",
    read_config=read_config,
    read_preprocessor=CropPreprocessor.from_config,
    prompt=prompt,
)
