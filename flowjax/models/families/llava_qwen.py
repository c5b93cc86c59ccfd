"""LLaVA-Video and LLaVA-OneVision in their original layout (`LlavaQwenForCausalLM`).

SigLIP vision tower, two-layer projector, every frame's grid made smaller, newline tokens, Qwen2
decoder (Li et al. 2024, arXiv 2408.03326; Zhang et al. 2024, arXiv 2410.02713). The released code
knows the vision tower by its name; another one's `config.json` can be put in as `vision_config`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast, get_args

from flowjax.data.preprocess import SquarePreprocessor
from flowjax.data.prompt import Prompt, PromptBuilder, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.decoder_config import read_qwen2
from flowjax.models.families.llava_onevision import SIGLIP_UNREAD, read_siglip
from flowjax.models.llava_config import read_frames
from flowjax.models.registry import Family
from flowjax.models.spatial_pool import GridPoolMode, Newline, NewlinePoolConfig
from flowjax.models.video_llm import VideoLLMConfig

ARCHITECTURE = "LlavaQwenForCausalLM"
PLACEHOLDER = "<|endoftext|>"
"""Stands for the video: the released code cuts the prompt where it is, and the tokenizers have no
token for it."""

ONLY_TOKENIZER_KNOWS = -1
"""Placeholder's id here, as the configuration has none: the tokenizer's is of the vocabulary."""

SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 26,
    "patch_size": 14,
}
"""The tower of the released models, which the code makes without its last layer."""

STRIDE = 2
"""How many times fewer rows of video tokens where the configuration says nothing, as in
`transformers`."""

TIMED = "timed"
"""The conversation with the frames' times."""

TOWERS = {"siglip-so400m-patch14-384": SO400M}
"""By the last part of `mm_vision_tower`, which fine-tunes have as a path of their own."""

PREPROCESSOR = {
    "size": {"height": 384, "width": 384},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""What the released code does to frames; its checkpoints have no file that says so."""

UNREAD = (
    *SIGLIP_UNREAD,
    Unread(
        (
            "image_aspect_ratio", "image_grid_pinpoints", "image_crop_resolution",
            "image_split_resolution", "mm_vision_select_layer", "mm_vision_select_feature",
        ),
        "the tiling of large still images; the SigLIP tower gives all patches of its last layer",
        "LLaVA-NeXT's release: llava_arch.py and siglip_encoder.py",
    ),
    Unread(
        (
            "mm_projector_lr", "mm_vision_tower_lr", "mm_tunable_parts", "use_mm_proj",
            "tune_mm_mlp_adapter", "freeze_mm_mlp_adapter", "unfreeze_mm_vision_tower",
            "vision_tower_pretrained", "use_pos_skipping", "pos_skipping_range", "force_sample",
            "faster_token_stride", "delay_load", "mm_use_im_patch_token", "video_fps",
            "frames_upbound", "tokenizer_model_max_length", "group_by_modality_length",
        ),
        "settings of the training code, and which frames of a video to take",
        "LLaVA-NeXT's release: train.py, and llava_arch.py, which skips positions in training only",
    ),
)  # fmt: skip


def accepts(fields: Mapping[str, Any]) -> bool:
    """Whether `config.json` is of this layout; released ones say `llava` or `llava_qwen`."""
    architectures = fields.get("architectures") or []
    return "mm_vision_tower" in fields and (
        ARCHITECTURE in architectures or fields.get("model_type") == "llava_qwen"
    )


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of the released code."""
    name = fields.get("mm_vision_tower")
    tower = fields.get("vision_config") or TOWERS.get(str(name).rstrip("/").rsplit("/", 1)[-1])
    if tower is None:
        raise FlowjaxError(
            f"{source}: mm_vision_tower is {name!r}; known is {', '.join(TOWERS)}; of another one, "
            "vision_config must hold the config.json, with the layers that the weights have"
        )
    # The decoder's fields are on the top level, among the others.
    top = HFConfig({**fields, "model_type": "qwen2", "vision_config": tower}, f"{source}: ", UNREAD)
    top.take("mm_vision_tower", str)
    vision = read_siglip(top.nested("vision_config"), -1, "the last layer")
    top.expect("mm_hidden_size", vision.width)
    top.expect("mm_projector_type", "mlp2x_gelu")
    top.expect("mm_use_im_start_end", False)
    top.expect("add_faster_video", False)
    timed = top.take("add_time_instruction", bool, False)
    projector = NewlinePoolConfig(
        inputs=vision.width,
        outputs=0,
        grid=vision.grid,
        stride=top.positive("mm_spatial_pool_stride", STRIDE),
        mode=read_mode(top),
        newline=read_newline(top),
        activation="gelu",
    )
    if projector.side < 1:
        raise FlowjaxError(
            f"{top.name('mm_spatial_pool_stride')} is {projector.stride}; a frame has only "
            f"{vision.grid} rows of patches"
        )
    frames = read_frames(top, projector.side)
    decoder = read_qwen2(top)
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=dataclasses.replace(projector, outputs=decoder.width),
        frames=frames,
        tokens_per_frame=projector.tokens_per_frame,
        placeholder=ONLY_TOKENIZER_KNOWS,
        conversation=TIMED if timed else "",
    )


def read_mode(top: HFConfig) -> GridPoolMode:
    """Take the way in which a frame's grid is made smaller."""
    name = top.take("mm_spatial_pool_mode", str, "bilinear")
    if name not in get_args(GridPoolMode):
        raise FlowjaxError(
            f"{top.name('mm_spatial_pool_mode')} is {name!r}; it must be one of "
            f"{', '.join(get_args(GridPoolMode))}"
        )
    return cast(GridPoolMode, name)


def read_newline(top: HFConfig) -> Newline:
    """Take where newline tokens stand, which also depends on how patches are merged."""
    merge = top.take("mm_patch_merge_type", str, "flat")
    name = top.take("mm_newline_position", str, "one_token")
    if name not in get_args(Newline):
        raise FlowjaxError(
            f"{top.name('mm_newline_position')} is {name!r}; it must be one of "
            f"{', '.join(get_args(Newline))}"
        )
    if merge not in ("flat", "spatial", "spatial_unpad"):
        raise FlowjaxError(
            f"{top.name('mm_patch_merge_type')} is {merge!r}; it must be flat, spatial or "
            "spatial_unpad"
        )
    if merge == "spatial" and name in ("grid", "frame"):
        raise FlowjaxError(
            f"{top.name('mm_patch_merge_type')} is {merge!r}, which has no newline token, but "
            f"mm_newline_position is {name!r}"
        )
    return cast(Newline, name) if merge == "spatial_unpad" else "no_token"


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The conversation `qwen_1_5` of the released code, with one video before the question.

    With `add_time_instruction`, a sentence tells the frames' times, as the released LLaVA-Video is
    asked.
    """
    assert isinstance(config.projector, NewlinePoolConfig)
    builder = PromptBuilder()
    builder.text(
        "system", "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    )
    builder.video(PLACEHOLDER, config.projector.frames(config.frames))
    builder.text("instruction", "\n")
    if config.conversation == TIMED:
        times = ",".join(f"{seconds:.2f}s" for seconds in shape.timestamps)
        builder.text(
            "instruction",
            f"The video lasts for {shape.seconds:.2f} seconds, and {config.frames} frames "
            f"are uniformly sampled from it. These frames are located at {times}.Please answer the "
            "following questions related to this video.\n",
        )
    builder.question(question)
    builder.chatml_answer(question)
    return builder.build()


FAMILY = Family(
    name="llava_qwen",
    accepts=accepts,
    read_config=read_config,
    read_preprocessor=SquarePreprocessor.from_config,
    prompt=prompt,
    preprocessor=PREPROCESSOR,
)
