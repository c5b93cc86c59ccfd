"""A question about a video as a model reads it: frames, prompt, token groups, and its answer."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from flowjax.asked.html import coloured_prompt, frame_strip, runs
from flowjax.data.clip import read_clip
from flowjax.data.frame_order import AS_IS, frame_order
from flowjax.data.prompt import Question, VideoShape
from flowjax.data.sample import Sample
from flowjax.data.video_options import VideoOptions
from flowjax.errors import FlowjaxError
from flowjax.files import printable
from flowjax.layout import EncodedPrompt, TokenLayout, encode_prompt
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.models.loaded import LoadedModel
from flowjax.models.video_llm import VideoLLM
from flowjax.padding import pad_prompt
from flowjax.token_text import answer_text

SHOWN = 10
"""Next tokens whose probabilities an open question gives."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A question about a video, decoded, preprocessed and tokenized for one model.

    What needs the model's parameters is computed when it is first read, and kept.

    model: that is asked.
    sample: the video and the question.
    prompt: token ids and token groups of the prompt, the video's positions included.
    frames: uint8 [frames, height, width, 3], RGB, in the order in which the model sees them.
    timestamps: of each place in the video, in seconds after its first frame.
    pixel_values: float32 [frames, ...], with the axes of the family's preprocessor.
    true_id: token id of the true option's letter; None where the answer is not known.
    repeated_frames: whether the video has fewer frames than the model reads.
    """

    model: LoadedModel
    sample: Sample
    prompt: EncodedPrompt
    frames: UInt8[np.ndarray, "frames height width 3"]
    timestamps: tuple[float, ...]
    pixel_values: Float[np.ndarray, "t ..."]
    true_id: int | None
    repeated_frames: bool

    @property
    def question(self) -> Question:
        """The question, its options, and the answer where it is known."""
        return self.sample.question

    @property
    def layout(self) -> TokenLayout:
        """The token groups of the prompt."""
        return self.prompt.layout

    @property
    def note(self) -> str:
        """What to know when reading results: the model's note, and whether the prompt is too long.

        A prompt is as long as its largest position, which multimodal rotary embedding shares.
        """
        known = self.model.config.decoder.positions
        if known is None or self.prompt.rope_position.max() < known:
            return self.model.note
        long = f"there are prompts longer than the {known:,} positions that the model was made for"
        return "; ".join(filter(None, (self.model.note, long)))

    @property
    def decoder(self) -> Decoder:
        """The decoder of the model."""
        return self.model.model.decoder

    @cached_property
    def embedded(self) -> Embedded:
        """What the decoder reads: text embeddings with the video's in their places."""
        return embed(self.model.model, self.prompt, self.pixel_values)

    @cached_property
    def logits(self) -> Float[np.ndarray, " vocabulary"]:
        """Logits after the last position: float32 [vocabulary]."""
        return np.asarray(_logits(self.decoder, pad_prompt(self.embedded)))

    @property
    def answer(self) -> str:
        """The most probable next token."""
        return self.text_of(int(self.logits.argmax()))

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of each option's letter as the next token, among all tokens.

        Of an open question, those of the most probable next tokens.
        """
        return self.probabilities_in(self.logits)

    def probabilities_in(self, logits: Float[np.ndarray, " vocabulary"]) -> dict[str, float]:
        """What `probabilities` gives, of other logits after the last position."""
        probability = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
        ids = self.letter_ids
        if not ids:
            top = np.argsort(-probability, kind="stable")[:SHOWN]
            ids = {self.text_of(int(token)): int(token) for token in top[::-1]}
            ids = dict(reversed(ids.items()))
        return {name: float(probability[token]) for name, token in ids.items()}

    @property
    def letter_ids(self) -> dict[str, int]:
        """Token id of each option's letter.

        Raises:
            FlowjaxError: the tokenizer has no token for a letter.
        """
        return {letter: _letter_id(self.model, letter) for letter in self.question.letters}

    def text_of(self, token: int) -> str:
        """A token as text, without the blanks around it; special tokens are shown."""
        return answer_text(self.model.tokenizer, token)

    def is_correct(self, token: int) -> bool:
        """Whether a token, in lower case, is the true option's letter, as the reference has it."""
        true = self.question.answer
        return true is not None and self.text_of(token).lower() == true.lower()

    def __repr__(self) -> str:
        """The question, and the groups of its prompt."""
        options = " ".join(
            f"({letter}) {option}"
            for letter, option in zip(self.question.letters, self.question.options, strict=True)
        )
        asked = " ".join(part for part in (self.question.stem, options) if part)
        groups = ", ".join(f"{cell} {count}" for cell, count in self._sizes().items())
        return (
            f"Asked({asked!r} about {str(self.sample.video)!r}, answer {self.question.answer}; "
            f"{len(self.frames)} frames; {self.layout.length} positions: {groups})"
        )

    def _repr_html_(self) -> str:
        ids, texts, start = self.prompt.ids, list[str](), 0
        for _, count in runs(self.layout):
            run = ids[start : start + count].tolist()
            texts.append(self.model.tokenizer.decode(run, skip_special_tokens=False))
            start += count
        answer = self.question.answer
        known = "" if answer is None else f"<p>answer: {escape(answer)}</p>"
        return frame_strip(self.frames) + coloured_prompt(self.layout, texts) + known

    def _sizes(self) -> dict[str, int]:
        counts = np.bincount(self.layout.cell, minlength=len(self.layout.cells)).tolist()
        return dict(zip(self.layout.cells, counts, strict=True))


def ask(
    model: LoadedModel,
    video: Path | str,
    question: str,
    options: tuple[str, ...] | list[str] = (),
    answer: str | None = None,
    *,
    start: float | None = None,
    end: float | None = None,
    order: str = AS_IS,
    frames: int | None = None,
    fps: int | float | None = None,
    max_pixels: int | None = None,
    prompt: str | None = None,
) -> Asked:
    """Put a question about a video to a model; nothing runs on it yet.

    Args:
        model: what `load` gave.
        video: path of an MP4, MOV, Matroska, WebM or AVI file.
        question: its text.
        options: two or more to choose from, or none for an open question.
        answer: the true option's letter, such as "B"; None where it is not known.
        start: seconds; the first of the part of the video to show. None: its beginning.
        end: seconds; the last of that part. None: its end.
        order: of the frames: "as-is", "shuffled", "reversed", or "repeated" (one frame in every
            place).
        frames: how many, evenly spaced; None for as many as the checkpoint says.
        fps: how many a second instead, so that longer videos have more.
        max_pixels: that frames are resized to at most, for families that read frames of any size;
            see `VideoOptions`.
        prompt: "reference", the family's own, "chat", by the checkpoint's chat template, or the
            path of a file with a template; None as the model was converted for.

    Returns:
        The question as the model reads it. Its `probabilities` run the model once.

    Raises:
        FlowjaxError: an unreadable video, a question that the model cannot be asked, or frames or
            pixels that its family does not allow.

    Examples:
        >>> asked = fj.ask(model, clip, "Which way?", ["Left.", "Right."], answer="B")
        >>> sorted(asked.probabilities)
        ['A', 'B']
        >>> "video" in asked.layout.groups
        True
    """
    path = Path(video)
    asked = Question(question, tuple(options), answer)
    model = model.reading(VideoOptions(frames, fps, max_pixels)).asked_by(prompt)
    return ask_sample(model, Sample(printable(path.name), "", path, asked, start, end), order=order)


def ask_sample(model: LoadedModel, sample: Sample, *, order: str = AS_IS) -> Asked:
    """What `ask` does, for a sample of a benchmark."""
    if sample.problem:
        raise FlowjaxError(sample.problem)
    answer = sample.question.answer
    true_id = None if answer is None else _letter_id(model, answer)
    clip = read_clip(sample, model.frames)
    frames = clip.frames[frame_order(order, len(clip.frames), sample.sample_id)]
    pixel_values = model.preprocess(frames)
    timestamps = tuple(map(float, clip.timestamps))
    shape = VideoShape(pixel_values.shape, timestamps, clip.duration)
    config = dataclasses.replace(model.config, frames=len(frames))
    prompt = encode_prompt(model.family.prompt(config, sample.question, shape), model.tokenizer)
    return Asked(model, sample, prompt, frames, timestamps, pixel_values, true_id, clip.repeated)


def true_token(asked: Asked) -> int:
    """Token id of the true option's letter, where it must be known.

    Raises:
        FlowjaxError: it is not.
    """
    if asked.true_id is None:
        raise FlowjaxError(f"sample {asked.sample.sample_id!r}: the true option is not known")
    return asked.true_id


def _letter_id(model: LoadedModel, letter: str) -> int:
    token = model.tokenizer.token_to_id(letter)
    if token is None:
        raise FlowjaxError(f"the tokenizer has no token for the letter {letter!r}")
    return token


def embed(
    model: VideoLLM, prompt: EncodedPrompt, pixel_values: Float[np.ndarray, "t ..."]
) -> Embedded:
    """Text embeddings with the video's in their places."""
    x, deepstack = embed_arrays(model, prompt.ids, prompt.video_position, pixel_values)
    return Embedded(x, jnp.asarray(prompt.rope_position), deepstack)


@jax.jit
def embed_arrays(
    model: VideoLLM, ids: Array, position: Array, pixel_values: Array
) -> tuple[Array, Array | None]:
    """What `embed` computes: embeddings of the prompt, and what deeper layers add if they do.

    Args:
        model: the model.
        ids, position: `ids` and `video_position` of `EncodedPrompt`.
        pixel_values: of the video.
    """
    video = model.encode_video(pixel_values)
    return model.embed(ids, position, video), model.deepstack(ids, position, video)


@jax.jit
def _logits(decoder: Decoder, prompt: Embedded) -> Float[Array, " vocabulary"]:
    return decoder.last_logits(decoder(prompt).output, prompt)
