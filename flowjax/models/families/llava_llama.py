"""LLaVA's original layout with a Llama or Mistral decoder (`LlavaLlamaForCausalLM`).

LLaVA-NeXT-Video (CLIP vision tower, pooling of every frame, two-layer projector), and LLaVA-1.5
and 1.6, which have no path for videos and get PLLaVA's pooling. The released code knows the
vision tower by its name; another one's `config.json` can be put in as `vision_config`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flowjax.data.preprocess import CropPreprocessor
from flowjax.data.prompt import Prompt, PromptBuilder, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.decoder_config import read_decoder
from flowjax.models.families.llava_next_video import read_mode
from flowjax.models.families.llava_qwen import ONLY_TOKENIZER_KNOWS
from flowjax.models.families.llava_qwen import UNREAD as ORIGINAL_UNREAD
from flowjax.models.families.pllava import CLIP_UNREAD, read_clip
from flowjax.models.llava_config import read_frames, turns
from flowjax.models.projector import PoolingProjectorConfig
from flowjax.models.registry import Family
from flowjax.models.spatial_pool import StridedPoolConfig
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.clip import ClipConfig

KINDS = {
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
}
"""Decoders by architecture, and by `model_type`."""

PLACEHOLDER = "<unk>"
"""Stands for the video: the released code cuts the prompt where it is, and the tokenizers have no
token for it."""

LARGE_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
}
TOWERS = {"clip-vit-large-patch14-336": LARGE_336}
"""By the last part of `mm_vision_tower`, which fine-tunes have as a path of their own."""

PREPROCESSOR = {
    "size": {"shortest_edge": 336},
    "crop_size": {"height": 336, "width": 336},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""That of the vision tower, whose folder the released code reads; its checkpoints have no file."""

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
"""Of Vicuna's conversation."""

YI = 64000
"""Tokens of the decoder of the 34B models, which are asked in ChatML."""

UNREAD = (
    *ORIGINAL_UNREAD,
    *CLIP_UNREAD,
    Unread(
        (
            "freeze_mm_vision_resampler", "tune_mm_vision_resampler", "mm_patch_merge_type",
            "mm_pooling_position", "max_sequence_length", "patchify_video_feature",
        ),
        "settings of the training code, and the tiling of large still images",
        "LLaVA's and LLaVA-NeXT's releases: train.py and llava_arch.py",
    ),
)  # fmt: skip


def kind_of(fields: Mapping[str, Any]) -> str | None:
    """The decoder, or None where the layout is another one."""
    names = (*(fields.get("architectures") or ()), fields.get("model_type"))
    return next((KINDS[name] for name in names if name in KINDS), None)


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of the released code."""
    kind, name = kind_of(fields), fields.get("mm_vision_tower")
    assert kind is not None
    tower = fields.get("vision_config") or TOWERS.get(str(name).rstrip("/").rsplit("/", 1)[-1])
    if tower is None:
        raise FlowjaxError(
            f"{source}: mm_vision_tower is {name!r}; known is {', '.join(TOWERS)}; of another one, "
            "vision_config must hold the config.json"
        )
    # The decoder's fields are on the top level, among the others.
    top = HFConfig({**fields, "model_type": kind, "vision_config": tower}, f"{source}: ", UNREAD)
    top.take("mm_vision_tower", str)
    layer = "mm_vision_select_layer"
    vision = read_clip(top.nested("vision_config"), top.take(layer, int, -2), top.name(layer))
    top.expect("mm_vision_select_feature", "patch")
    top.expect("mm_hidden_size", vision.width)
    top.expect("mm_projector_type", "mlp2x_gelu")
    top.expect("mm_use_im_start_end", False)
    top.expect("mm_newline_position", "no_token")
    projector, frames, tokens = read_projector(top, vision)
    decoder = read_decoder(top, among=(kind,))
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=dataclasses.replace(projector, outputs=decoder.width),
        frames=frames,
        tokens_per_frame=tokens,
        placeholder=ONLY_TOKENIZER_KNOWS,
        conversation="chatml" if decoder.vocabulary == YI else kind,
    )


def read_projector(
    top: HFConfig, vision: ClipConfig
) -> tuple[StridedPoolConfig | PoolingProjectorConfig, int, int]:
    """The projector, without its outputs, with the number of frames and of tokens of each.

    As the release of LLaVA-NeXT-Video and `transformers` have it, features are pooled before the
    linear layers.
    """
    if top.take("mm_resampler_type", str, "") == "spatial_pool":
        top.expect("mm_spatial_pool_out_channels", vision.width)
        projector = StridedPoolConfig(
            inputs=vision.width,
            outputs=0,
            grid=vision.grid,
            stride=top.positive("mm_spatial_pool_stride", 2),
            mode=read_mode(top, "mm_spatial_pool_mode"),
            activation="gelu",
        )
        if projector.side < 1:
            raise FlowjaxError(
                f"{top.name('mm_spatial_pool_stride')} is {projector.stride}; a frame has only "
                f"{vision.grid} rows of patches"
            )
        return projector, read_frames(top, projector.side), projector.side**2
    if "pooling_shape" not in top:
        raise FlowjaxError(
            f"{top.name('mm_resampler_type')} is not 'spatial_pool': this release has no path for "
            "videos; convert with --pooling-shape T-H-W (frames, rows and columns of video tokens) "
            "to pool them as PLLaVA does"
        )
    frames, rows, columns = top.shape("pooling_shape", 3)
    top.expect("num_frames", frames)
    grid = (frames, vision.grid, vision.grid)
    pooling = (frames, rows, columns)
    projector = PoolingProjectorConfig(vision.width, 0, grid, pooling, activation="gelu")
    return projector, frames, rows * columns


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The conversation of the released evaluation, with one video before the question.

    `vicuna_v1` with a Llama decoder, `mistral_instruct` with a Mistral decoder, and
    `mistral_direct`, which is ChatML, with Yi's.
    """
    assert config.tokens_per_frame is not None
    del shape  # every video has as many tokens
    chatml = config.conversation == "chatml"
    user, answer = turns(config.conversation)
    if chatml:
        user = "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n"
        answer = "<|im_end|><|im_start|>assistant\n"
    elif config.conversation == "llama":
        user = f"{SYSTEM}{user}"
    builder = PromptBuilder()
    builder.text("system", user)
    cells = [(f"frame_{index}", config.tokens_per_frame) for index in range(config.frames)]
    builder.video(PLACEHOLDER, cells)
    builder.text("instruction", "\n")
    builder.question(question)
    first = "Best option:(" if chatml else " Best option:("
    choose = f"\nOnly give the best option.{answer}{first}"
    builder.text("instruction", choose if question.options else answer)
    return builder.build()


FAMILY = Family(
    name="llava_llama",
    accepts=lambda fields: "mm_vision_tower" in fields and kind_of(fields) is not None,
    read_config=read_config,
    read_preprocessor=CropPreprocessor.from_config,
    prompt=prompt,
    preprocessor=PREPROCESSOR,
)
