"""What a plan must know of a model: its configuration, how it reads videos and questions."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.layout import EncodedPrompt, TokenLayout, encode_prompt
from flowjax.models.checkpoint import (
    CONFIG,
    EMBEDDING,
    MANIFEST,
    TOKENIZER,
    load_model,
    read_manifest,
    read_preprocessor,
    read_tokenizer,
)
from flowjax.models.registry import BoundedPreprocess, Family, Preprocess, families, family_of
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.planning.presets import PRESETS

CHARACTERS = 4
"""Of English text in a token, where there is no tokenizer to count with."""


@dataclass(frozen=True)
class Planned:
    """A model to plan for; none of its parameters need be here.

    tokenizer: None where there is none; tokens are then counted by characters.
    dtype: of the parameters.
    """

    name: str
    config: VideoLLMConfig
    family: Family
    preprocess: Preprocess
    tokenizer: Tokenizer | None
    dtype: str


@dataclass(frozen=True)
class Reading:
    """A typical question about a typical video, as the model reads it.

    prompt: its token groups decide what a sweep costs.
    pixels: shape of the pixel values.
    """

    prompt: EncodedPrompt
    pixels: tuple[int, ...]

    def grouped(self, layout: TokenLayout) -> "Reading":
        """The same with other token groups of the same positions."""
        return Reading(dataclasses.replace(self.prompt, layout=layout), self.pixels)


def planned(model: str, dtype: str | None = None) -> Planned:
    """The model that MODEL names: a preset, a converted model, or a folder with `config.json`.

    Args:
        model: as the user wrote it.
        dtype: of the parameters; None for a converted model's own, and bfloat16 of others.

    Raises:
        FlowjaxError: it is none of these, or a configuration that is not supported.
    """
    if model in PRESETS:
        preset, source = PRESETS[model], f"preset {model}"
        family = family_of(preset.config, source)
        config = family.read_config(preset.config, source)
        frames = family.read_preprocessor(preset.preprocessor, source)
        return Planned(model, config, family, frames, None, _dtype(dtype or "bfloat16"))
    path = Path(model)
    if not path.is_dir():
        raise FlowjaxError(
            f"{model} is neither a directory nor a preset; the presets are {', '.join(PRESETS)}"
        )
    if (path / MANIFEST).is_file():
        loaded = load_model(path, parameters=False)
        own = read_manifest(path).dtype[EMBEDDING]
        return Planned(
            loaded.name,
            loaded.config,
            loaded.family,
            loaded.preprocess,
            loaded.tokenizer,
            _dtype(dtype or own),
        )
    if not (path / CONFIG).is_file():
        raise FlowjaxError(f"{path} has neither {MANIFEST} nor {CONFIG}")
    fields = read_json(path / CONFIG)
    family = family_of(fields, str(path / CONFIG))
    return Planned(
        path.name,
        family.read_config(fields, str(path / CONFIG)),
        family,
        read_preprocessor(path, family),
        read_tokenizer(path / TOKENIZER) if (path / TOKENIZER).is_file() else None,
        _dtype(dtype or "bfloat16"),
    )


def _dtype(name: str) -> str:
    if name not in ("bfloat16", "float16", "float32"):
        raise FlowjaxError(f"--dtype {name}: choose bfloat16, float16 or float32")
    return jnp.dtype(name).name


def reading(
    model: Planned,
    question: Question,
    *,
    frames: int | None,
    size: tuple[int, int],
    max_pixels: int | None,
) -> Reading:
    """What a question about a video of some size is to a model.

    Args:
        model: to plan for.
        question: a typical one.
        frames: read of the video; None for as many as the checkpoint says.
        size: width and height of the video in pixels.
        max_pixels: see `VideoOptions`.

    Raises:
        FlowjaxError: frames or pixels that the family does not allow.
    """
    count = model.config.frames if frames is None else frames
    least, most = model.family.frames
    if count < least or (most is not None and count > most):
        allowed = f"at least {least}" if most is None else f"{least} to {most}"
        raise FlowjaxError(f"--frames {count}: family {model.config.family} reads {allowed}")
    preprocess = model.preprocess
    if max_pixels is not None:
        if not isinstance(preprocess, BoundedPreprocess):
            raise FlowjaxError(
                f"--max-pixels {max_pixels}: family {model.config.family} resizes every frame to "
                "the size that its checkpoint says; leave it out"
            )
        preprocess = preprocess.at_most(max_pixels)
    width, height = size
    pixels = preprocess(np.zeros((count, height, width, 3), np.uint8)).shape
    config = dataclasses.replace(model.config, frames=count)
    shape = VideoShape(pixels, tuple(map(float, range(count))), float(count))
    prompt = families()[config.family].prompt(config, question, shape)
    tokenizer = model.tokenizer or by_characters(prompt.placeholder)
    return Reading(encode_prompt(prompt, tokenizer), pixels)


def by_characters(placeholder: str) -> Tokenizer:
    """A tokenizer that makes a token of every `CHARACTERS` characters, and one of a placeholder."""
    tokenizer = Tokenizer(WordLevel({"text": 0}, unk_token="text"))
    every = Regex(rf"[\s\S]{{1,{CHARACTERS}}}")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(every, "isolated")
    tokenizer.add_special_tokens([placeholder])
    return tokenizer
