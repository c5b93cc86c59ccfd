"""A model in memory, with what it is asked by and how it reads videos."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import jax
from tokenizers import Tokenizer

from flowjax.data.frame_rate import AtRate
from flowjax.data.video_options import AS_CHECKPOINT, VideoOptions
from flowjax.errors import FlowjaxError
from flowjax.models.chat import ChatTemplate, chat_prompt, read_chat_template
from flowjax.models.prompt_file import PromptFile, read_prompt_file
from flowjax.models.registry import BoundedPreprocess, Family, Preprocess, families
from flowjax.models.video_llm import VideoLLM, VideoLLMConfig

REFERENCE, CHAT = "reference", "chat"
"""What a model is asked by: its family's own prompt, or its checkpoint's chat template.

A model is asked by the first unless its conversion's override `prompt`, or a run, says otherwise; a
run may have a template in a file, too.
"""


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel:
    """A model with all that is needed to ask it a question.

    preprocess: frames uint8 [t, h, w, 3] to pixel values.
    name, note: as in `Manifest`.
    video: how videos are read where it is not as the checkpoint says.
    prompt: what it is asked by, `REFERENCE`, `CHAT`, or a template of the user's own.
    """

    model: VideoLLM
    config: VideoLLMConfig
    family: Family
    tokenizer: Tokenizer
    preprocess: Preprocess
    name: str
    note: str
    path: Path
    video: VideoOptions = AS_CHECKPOINT
    prompt: str | PromptFile = REFERENCE

    def asked_by(self, prompt: str | PromptFile | None) -> "LoadedModel":
        """The same model, asked by its family's own prompt, its checkpoint's or one in a file.

        prompt: `REFERENCE`, `CHAT`, or the path of a file (see `flowjax.models.prompt_file`) or
            what was read from it; None: as it was converted for.

        Raises:
            FlowjaxError: another name, the checkpoint has no template, or that of the file is none.
        """
        if prompt in (None, self.prompt):
            return self
        family = families()[self.config.family]
        if prompt == CHAT:
            family = chatting(family, self.path, self.tokenizer)
        elif prompt != REFERENCE:
            if isinstance(prompt, str):
                if not Path(prompt).is_file():
                    raise FlowjaxError(
                        f"prompt {prompt}: choose {REFERENCE} or {CHAT}, or give a file that there "
                        "is"
                    )
                prompt = read_prompt_file(Path(prompt))
            template = read_chat_template(self.path)
            begins = "" if template is None else first_token(template, self.tokenizer)
            family = dataclasses.replace(family, prompt=prompt.prompts(family.prompt, begins))
        return dataclasses.replace(self, family=family, prompt=prompt)

    def reading(self, video: VideoOptions) -> "LoadedModel":
        """The same model, whose videos are read as these options say; the rest stays.

        Raises:
            FlowjaxError: names the option that this family does not allow, and what it allows.
        """
        preprocess, config = self.preprocess, self.config
        least, most = self.family.frames
        count = video.num_frames
        if count is not None:
            if count < least or (most is not None and count > most):
                allowed = f"at least {least}" if most is None else f"{least} to {most}"
                raise FlowjaxError(f"frames {count}: family {config.family} reads {allowed}")
            config = dataclasses.replace(config, frames=count)
        if video.max_pixels is not None:
            if not isinstance(preprocess, BoundedPreprocess):
                raise FlowjaxError(
                    f"max-pixels {video.max_pixels}: family {config.family} resizes every frame to "
                    "the size that its checkpoint says, whatever it was; leave it out"
                )
            preprocess = preprocess.at_most(video.max_pixels)
        return dataclasses.replace(
            self, config=config, preprocess=preprocess, video=video.over(self.video)
        )

    @property
    def frames(self) -> int | AtRate:
        """How many frames of a video are read, or what chooses them at a rate."""
        if self.video.fps is None:
            return self.config.frames
        return AtRate(float(self.video.fps), self.family.by_rate, *self.family.frames)

    def __repr__(self) -> str:
        """Family, sizes, parameters, dtype and devices."""
        decoder = self.config.decoder
        leaves = jax.tree.leaves(self.model)
        devices = sorted({str(device) for leaf in leaves for device in _devices_of(leaf)})
        return (
            f"LoadedModel({self.name!r}, {self.config.family}: {decoder.layers} layers, "
            f"{decoder.heads} heads, {sum(leaf.size for leaf in leaves):,} parameters, "
            f"{self.model.dtype}, on {', '.join(devices) or 'no device'})"
        )

    def _repr_html_(self) -> str:
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<p>{escape(repr(self))}</p>{note}"


def _devices_of(leaf: jax.Array | jax.ShapeDtypeStruct) -> Iterable[object]:
    return leaf.devices() if isinstance(leaf, jax.Array) else ()


def chatting(family: Family, path: Path, tokenizer: Tokenizer) -> Family:
    """The family with prompts by the chat template of the checkpoint or model at `path`.

    Raises:
        FlowjaxError: it has none.
    """
    template = read_chat_template(path)
    if template is None:
        raise FlowjaxError(f"{path} has no chat template; leave out --prompt {CHAT}")
    prompt = chat_prompt(template, family.prompt, first_token(template, tokenizer))
    return dataclasses.replace(family, prompt=prompt)


def first_token(template: ChatTemplate, tokenizer: Tokenizer) -> str:
    """The token that the tokenizer itself puts before every text; empty if it puts none."""
    begin = template.tokens.get("bos_token", "")
    return begin if tokenizer.encode("").tokens[:1] == [begin] else ""
