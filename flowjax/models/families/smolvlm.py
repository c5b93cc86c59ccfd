"""SmolVLM2 in the layout of `transformers` (Marafioti et al. 2025, arXiv 2504.05299).

SigLIP vision tower with its last norm, pixel shuffle and one linear layer, Llama decoder
(SmolLM2). Frames are images between their times in the prompt.
"""

from collections.abc import Mapping
from typing import Any

from flowjax.data.frame_rate import ByRate
from flowjax.data.preprocess import StretchPreprocessor
from flowjax.data.prompt import Prompt, PromptBuilder, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.decoder_config import read_llama
from flowjax.models.families.llava_onevision import SIGLIP_LAYERS, read_sizes
from flowjax.models.llava_config import read_placeholder, read_tied
from flowjax.models.pixel_shuffle import ShuffleLinearConfig
from flowjax.models.registry import Family
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.siglip import SiglipConfig

PLACEHOLDER = "<image>"
BEFORE, AFTER = "<fake_token_around_image><global-img>", "<fake_token_around_image>"
"""Around the tokens of a frame."""

FRAMES = 16
"""Frames of a video where `num_frames` is not in the configuration, which is not in released ones.

The released processor takes one a second instead, and at most 64, so that their number differs.
"""

UNREAD = (
    Unread(
        ("_pad_token_id",),
        "the token that generation pads with",
        "transformers.SmolVLMConfig, 5",
    ),
    Unread(
        ("freeze_config", "use_reentrant_checkpointing", "image_seq_len", "video_sampling"),
        "training, and what the processor reads of its own file",
        "transformers.SmolVLMConfig, 4.50 to 5, does not read them",
    ),
    Unread(
        ("max_image_size", "size", "use_base_siglip", "tie_word_embeddings"),
        "the preprocessor's sizes, and where training started from",
        "transformers.SmolVLMVisionConfig, 4.50 to 5, does not read them",
        part="vision_config",
    ),
    Unread(
        (
            "is_llama_config", "neftune_noise_alpha", "perceiver_config", "pixel_shuffle_factor",
            "use_resampler", "qk_layer_norms", "rope_interleaved",
        ),
        "of the training code's own decoder",
        "transformers.LlamaConfig, which SmolVLMConfig makes of text_config, does not read them",
        part="text_config",
    ),
)  # fmt: skip


def read_config(fields: Mapping[str, Any], source: str) -> VideoLLMConfig:
    """Read `config.json`; absent fields have the defaults of `transformers`."""
    top = HFConfig(fields, f"{source}: ", UNREAD)
    text = top.nested("text_config")
    decoder = read_tied(top, read_llama(text, top.take("vocab_size", int, 0)))
    vision = read_vision(top.nested("vision_config"))
    block = top.positive("scale_factor", 2)
    if vision.grid % block:
        raise FlowjaxError(
            f"{top.name('scale_factor')} is {block}; it must divide the {vision.grid} patches "
            "along a side of a frame"
        )
    projector = ShuffleLinearConfig(vision.width, decoder.width, vision.grid, block)
    frames = top.positive("num_frames", FRAMES)
    placeholder = read_placeholder(top, 128257, decoder.vocabulary, ("image_token_id",))
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


def read_vision(vision: HFConfig) -> SiglipConfig:
    """Read the vision tower's configuration.

    Raises:
        FlowjaxError: names the field that is missing, unknown or not supported.
    """
    name = vision.take("model_type", str, "smolvlm_vision")
    if name not in ("smolvlm_vision", "smolvlm"):
        raise FlowjaxError(f"{vision.name('model_type')} is {name!r}; it must be smolvlm_vision")
    layers = vision.positive("num_hidden_layers", SIGLIP_LAYERS)
    return read_sizes(vision, layers, width=1152, heads=16, patch=32, output_norm=True)


def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
    """The released processor's prompt: how many frames, how long, and every frame's time.

    Times and the tokens around a frame belong to it.
    """
    assert config.tokens_per_frame is not None
    builder = PromptBuilder()
    minutes, seconds = divmod(int(shape.seconds), 60)
    length = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
    builder.text("system", "<|im_start|>User: ")
    builder.text(
        "instruction",
        f"You are provided the following series of {in_words(config.frames)} frames from a "
        f"{length} [H:MM:SS] video.\n",
    )
    for index, shown in enumerate(shape.timestamps):
        frame = f"frame_{index}"
        minutes, seconds = divmod(int(shown), 60)
        builder.text(frame, f"\nFrame from {minutes:02d}:{seconds:02d}:{BEFORE}")
        builder.video(PLACEHOLDER, [(frame, config.tokens_per_frame)])
        builder.text(frame, AFTER)
    builder.text("instruction", "\n\n")
    builder.question(question)
    answer = "<end_of_utterance>\nAssistant:"
    choose = f"\nOnly give the best option.{answer} Best option:("
    builder.text("instruction", choose if question.options else answer)
    return builder.build()


ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number: int) -> str:
    """A whole number of at most 999 in English, as the prompt has the number of frames."""
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")
    if number > 999:
        raise FlowjaxError(f"num_frames is {number}; this family takes at most 999")
    hundreds, rest = divmod(number, 100)
    return f"{ONES[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")


FAMILY = Family(
    name="smolvlm",
    accepts=lambda fields: fields.get("model_type") == "smolvlm",
    read_config=read_config,
    read_preprocessor=StretchPreprocessor.from_config,
    prompt=prompt,
    frames=(1, 999),
    by_rate=ByRate(most=64),
)
