"""One video and what is asked of it, as a model is trained on it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from flowjax.data.clip import read_clip
from flowjax.data.prompt import Prompt, Question, VideoShape
from flowjax.data.sample import Sample
from flowjax.data.videochat2 import Instructions, Turn
from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.inference.end_tokens import TOKENIZER_CONFIG, end_tokens
from flowjax.layout import encode_prompt
from flowjax.models.loaded import LoadedModel
from flowjax.train.instruct import Instructed
from flowjax.train.packing import Segment, pack


def example_of(
    model: LoadedModel,
    asked: Instructions,
    order: Sequence[int] | Int[np.ndarray, " turns"],
    *,
    length: int,
    questions: int,
    end: str,
) -> Instructed:
    """The video's pixel values, and some of its questions in one packed sequence.

    Every question is the family's prompt for an open one; its answer and the end are learned, and
    nothing else. Questions that have no room or cannot be asked are left out.

    Args:
        model: whose prompt, tokenizer and preprocessor are used; its parameters are not.
        asked: the video, its questions and answers.
        order: in which questions are taken.
        length: positions of the sequence.
        questions: that are taken at most.
        end: text of the token that ends an answer.

    Raises:
        FlowjaxError: the video cannot be read, or none of its questions can be asked in that room.
    """
    sample = Sample(asked.name, "", asked.video, Question("?", ()), asked.start, asked.end)
    clip = read_clip(sample, model.frames)
    pixels = model.preprocess(clip.frames)
    shape = VideoShape(pixels.shape, tuple(map(float, clip.timestamps)), clip.duration)
    config = dataclasses.replace(model.config, frames=len(clip.frames))
    found: list[_Encoded] = []
    failure = FlowjaxError(f"{asked.name}: it has no question")
    for index in order:
        if len(found) == questions:
            break
        turn = asked.turns[int(index)]
        try:
            prompt = model.family.prompt(config, Question(turn.question, ()), shape)
            one = _encoded(prompt, turn, model.tokenizer, end)
            _check_room(one, found, length)
        except FlowjaxError as error:
            failure = FlowjaxError(f"{asked.name}: QA {int(index)}: {error}")
            continue
        found.append(one)
    if not found:
        raise failure
    first = found[0]
    packed = pack(
        first.prefix, [one.segment for one in found], length, first.position[:, : len(first.prefix)]
    )
    return Instructed(packed, first.video_position, np.asarray(pixels, np.float32))


@dataclasses.dataclass(frozen=True)
class _Encoded:
    """A question and its answer: what comes up to the video's end, and what comes after it.

    position: int32 [axes, prompt], of all that is before the answer.
    """

    prefix: Int[np.ndarray, " p"]
    segment: Segment
    position: Int[np.ndarray, "axes n"]
    video_position: Int[np.ndarray, " video"]


def _encoded(prompt: Prompt, turn: Turn, tokenizer: Tokenizer, end: str) -> _Encoded:
    encoded = encode_prompt(prompt, tokenizer)
    answer = _answer_ids(prompt.text, turn.answer, end, tokenizer)
    ids = np.concatenate([encoded.ids, answer])
    before, asked = int(encoded.video_position[-1]) + 1, len(encoded.ids)
    learned: Float[np.ndarray, " n"] = np.zeros(len(ids), np.float32)
    learned[asked:] = 1
    # Text has the same position on all axes and goes on from the text before it.
    more = encoded.rope_position[:, -1:] + np.arange(1, len(answer) + 1, dtype=np.int32)
    position = np.concatenate([encoded.rope_position, more], axis=1)
    segment = Segment(ids[before:], ids[before:], learned[before:], position[:, before:])
    return _Encoded(ids[:before], segment, position, encoded.video_position)


def _answer_ids(
    prompt: str, answer: str, end: str, tokenizer: Tokenizer
) -> Int[np.ndarray, " answer"]:
    """The tokens that a model is to generate after a prompt."""
    for token in tokenizer.get_added_tokens_decoder().values():
        if token.special and token.content in answer:
            raise FlowjaxError(f"a contains {token.content!r}, a control token of this model")
    space = "" if prompt[-1:].isspace() else " "
    asked = tokenizer.encode(prompt).ids
    whole = tokenizer.encode(f"{prompt}{space}{answer}{end}").ids
    if whole[: len(asked)] != asked:
        raise FlowjaxError(f"a begins with {answer[:8]!r}, which runs into the prompt's last token")
    return np.array(whole[len(asked) :], np.int32)


def _check_room(one: _Encoded, others: Sequence[_Encoded], length: int) -> None:
    taken = len(one.prefix) + sum(len(other.segment.ids) for other in others)
    if taken + len(one.segment.ids) > length:
        raise FlowjaxError(
            f"it takes {len(one.segment.ids)} positions beside {taken}; there are {length} (length)"
        )
    if others and not np.array_equal(one.prefix, others[0].prefix):
        raise FlowjaxError("its prompt begins otherwise than that of the other questions")


def end_of_answers(model: LoadedModel, wanted: str | None) -> str:
    """The text of the token that ends an answer: `wanted`, or the tokenizer's `eos_token`.

    Raises:
        FlowjaxError: it is none of the tokens that end generation.
    """
    path = model.path / TOKENIZER_CONFIG
    if wanted is None and path.is_file():
        value = read_json(path).get("eos_token")
        wanted = value.get("content") if isinstance(value, dict) else value
    known = end_tokens(Path(model.path), model.tokenizer)
    if not isinstance(wanted, str) or model.tokenizer.token_to_id(wanted) not in known:
        names = ", ".join(repr(model.tokenizer.id_to_token(token)) for token in sorted(known))
        raise FlowjaxError(f"batch.end {wanted!r} does not end this model's answers; {names} do")
    return wanted
