"""Video-LLaVA in the layout of `transformers` (Lin et al. 2023, arXiv 2311.10122).

CLIP-like vision tower for videos, two-layer projector on all its features, the class token's among
them, Llama decoder (Vicuna).
"""

from collections.abc import Mapping
from typing import Any

from flowjax.data.preprocess import CropPreprocessor
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.decoder_config import read_llama
from flowjax.models.families.llava_next_video import prompt
from flowjax.models.families.pllava import CLIP_UNREAD, read_clip
from flowjax.models.llava_config import read_placeholder, read_projector_activation, read_tied
from flowjax.models.projector import ClassTokenProjectorConfig
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig

FRAMES = 8
"""Frames of a video where `num_frames` is not in the configuration, which is not in released ones.

The released model was trained with 8, for which `video_seq_length` counts the tokens.
"""

UNREAD = (
    *CLIP_UNREAD,
    Unread(
        (
            "image_token_index", "image_token_id", "image_seq_length", "video_seq_length",
            "vision_feature_select_strategy",
        ),
        "still images, and the processor's count of tokens",
        "transformers.VideoLlavaModel.get_video_features, 4.40 to 5: a video's features are all "
        "read, with the class token's",
    ),
)  # fmt: skip


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of `transformers`."""
    top = HFConfig(fields, f"{source}: ", UNREAD)
    text = top.nested("text_config")
    decoder = read_tied(top, read_llama(text, top.take("vocab_size", int, 0)))
    vision = read_clip(
        top.nested("vision_config"),
        top.take("vision_feature_layer", int, -2),
        top.name("vision_feature_layer"),
        class_token=True,
    )
    projector = ClassTokenProjectorConfig(
        vision.width, decoder.width, read_projector_activation(top)
    )
    frames = top.positive("num_frames", FRAMES)
    placeholder = read_placeholder(top, 32001, decoder.vocabulary)
    top.finish()
    return VideoLLMConfig(
        family=FAMILY.name,
        decoder=decoder,
        vision=vision,
        projector=projector,
        frames=frames,
        tokens_per_frame=1 + vision.grid**2,
        placeholder=placeholder,
    )


FAMILY = Family(
    name="video_llava",
    accepts=lambda fields: fields.get("model_type") == "video_llava",
    read_config=read_config,
    read_preprocessor=CropPreprocessor.from_config,
    prompt=prompt,
)
