"""VideoLLaMA3 (Zhang et al. 2025, arXiv 2501.13106) in the layout that `transformers` has it in.

The modules of `flowjax.models.families.videollama3`; frames do not see each other.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flowjax.data.frame_rate import ByRate
from flowjax.data.prompt import Prompt, Question, VideoShape
from flowjax.data.shared_budget import SharedBudgetPreprocessor
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.decoder_config import read_qwen2
from flowjax.models.families.videollama3 import FRAMES, conversation, read_siglip_navit
from flowjax.models.projector import MlpProjectorConfig
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.siglip_navit import SiglipNavitConfig

PLACEHOLDER = "<|video_pad|>"
VIDEO_TOKEN = 151656
"""The placeholder's id where the configuration has none."""

UNREAD = (
    Unread(("image_token_id",), "the token of still images", "transformers.VideoLlama3Config"),
)


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of `transformers`."""
    top = HFConfig(fields, f"{source}: ", UNREAD)
    decoder = read_qwen2(top.nested("text_config"))
    # The model's own field counts if it is set, and the decoder's otherwise.
    tied = top.take("tie_word_embeddings", bool, False) or decoder.tied_embeddings
    vision = read_siglip_navit(
        top.nested("vision_config"), "video_llama_3_vision", across_frames=False
    )
    frames = top.positive("num_frames", FRAMES)
    placeholder = top.positive("video_token_id", VIDEO_TOKEN)
    top.finish()
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=dataclasses.replace(decoder, tied_embeddings=tied),
        vision=vision,
        projector=MlpProjectorConfig(vision.width, decoder.width, "gelu"),
        frames=frames,
        tokens_per_frame=None,
        placeholder=placeholder,
    )


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The conversation of the first release, with this layout's placeholder."""
    assert isinstance(config.vision, SiglipNavitConfig)
    return conversation(config.vision, PLACEHOLDER, question, shape)


FAMILY = Family(
    name="video_llama_3",
    accepts=lambda fields: fields.get("model_type") == "video_llama_3",
    read_config=read_config,
    read_preprocessor=SharedBudgetPreprocessor.from_config,
    prompt=prompt,
    by_rate=ByRate("starts", least=4, most=180),
    pathways=("videollama3-7b",),
)
