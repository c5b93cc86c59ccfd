"""A checkpoint's own chat template, and prompts written with it.

The template is rendered with a mark where the question stands, and one for the video if it has no
way of its own to write one. What comes before, between and after them is its text; the video, with
the times or numbers that the released processor puts to its frames, is written as the family does,
and so is what follows a video of which the template knows nothing.
So every character's token group is known, as in `flowjax.data.prompt`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from flowjax.data.prompt import Prompt, PromptBuilder, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.files import read_json, read_text
from flowjax.models.video_llm import VideoLLMConfig

JINJA, FILES = (
    "chat_template.jinja",
    ("chat_template.json", "processor_config.json", "tokenizer_config.json"),
)
"""Where a template may be, the first found holding: as a file of its own, or as a JSON field."""

TODAY = date(2024, 7, 26)
"""What `strftime_now` tells a template on every day: no result may depend on when it is made.

It is the day that Llama 3's templates write where nobody tells them one.
"""

VIDEO, TEXT = "[[flowjax: the video]]", "[[flowjax: the question]]"
"""Marks that no template writes itself."""

PromptOf = Callable[[VideoLLMConfig, Question, VideoShape], Prompt]


class _Generation(Extension):
    """`{% generation %}`, with which templates mark answers for training; it writes nothing."""

    tags = {"generation"}  # noqa: RUF012 - the base class has it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What is inside the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template.

    source: its text.
    path: the file that has it.
    tokens: the tokenizer's special tokens by role, such as `bos_token`.
    """

    source: str
    path: Path
    tokens: Mapping[str, str]

    def render(self, content: Any, **names: Any) -> str:  # noqa: ANN401 - text, or a list of parts
        """A conversation of one user's message, up to where the answer begins.

        Raises:
            FlowjaxError: the template is damaged or does not take such a message.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(
            value, ensure_ascii=False, **options
        )
        environment.globals |= {
            "raise_exception": _refuse,
            "strftime_now": TODAY.strftime,
        }
        message = {"role": "user", "content": content}
        try:
            return environment.from_string(self.source).render(
                messages=[message],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **{**self.tokens, **names},
            )
        except Exception as error:  # a template raises whatever it likes
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise FlowjaxError(f"{self.path}: the chat template fails: {reason}") from error


def _refuse(message: str) -> None:
    raise TemplateError(message)


def read_chat_template(directory: Path) -> ChatTemplate | None:
    """The template of a checkpoint or a converted model; None if it has none.

    Raises:
        FlowjaxError: a field that is no template.
    """
    path = directory / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    tokens = {
        name: text
        for name, value in config.items()
        if name.endswith("_token")
        and isinstance(text := value.get("content") if isinstance(value, Mapping) else value, str)
    }
    if (directory / JINJA).is_file():
        return ChatTemplate(read_text(directory / JINJA), directory / JINJA, tokens)
    for file in FILES:
        path = directory / file
        found = read_json(path).get("chat_template") if path.is_file() else None
        if isinstance(found, Sequence) and not isinstance(found, str):
            named = [entry for entry in found if isinstance(entry, Mapping)]
            templates = (entry.get("template") for entry in named if entry.get("name") == "default")
            found = next(templates, None)
        if isinstance(found, str):
            return ChatTemplate(found, path, tokens)
        if found is not None:
            raise FlowjaxError(f"{path}: chat_template must be text")
    return None


@dataclass(frozen=True)
class Frame:
    """What stands around the video and the question: the prompt is before + video + between + ...

    section: of the family's prompt, `[start, stop)`, that is the video.
    """

    before: str
    between: str
    after: str
    section: tuple[int, int]

    def __str__(self) -> str:
        """With words in place of the video and the question."""
        return f"{self.before}<the video>{self.between}<the question>{self.after}"


def frame_of(template: ChatTemplate, built: Prompt, shape: VideoShape) -> Frame:
    """What the template writes around a video and a question.

    Args:
        template: the checkpoint's.
        built: the family's prompt for an open question about the video.
        shape: of the video.

    Raises:
        FlowjaxError: the template fails, or writes no question.
    """
    start, stop = video_section(built)
    mark, rendered = _rendered(template, built, shape, lone=_is_lone(built, start, stop))
    before, _, rest = rendered.partition(mark)
    between, _, after = rest.partition(TEXT)
    # What the template itself puts around a video's token may lie outside of the frames' own.
    whole = mark.strip()
    if built.text.count(whole) == 1:
        start = min(start, built.text.index(whole))
        stop = max(stop, built.text.index(whole) + len(whole))
    before += mark[: len(mark) - len(mark.lstrip())]
    between = mark[len(mark.rstrip()) :] + between
    return Frame(before, between, after, (start, stop))


def built_frame(built: Prompt, section: tuple[int, int]) -> Frame:
    """The same of the family's own prompt for an open question."""
    question = next(span for span in built.spans if span.cell == "question_stem")
    start, stop = section
    return Frame(
        built.text[:start],
        built.text[stop : question.start],
        built.text[question.stop :],
        section,
    )


def video_section(built: Prompt) -> tuple[int, int]:
    """Where the video begins and ends in a prompt: from the end of the system's text on.

    Tags right around it, such as `<img>` and `</img>`, are part of it.
    """
    start = max((span.stop for span in built.spans if span.cell == "system"), default=0)
    frames = [span.stop for span in built.spans if span.cell.startswith("frame_")]
    last = built.text.rindex(built.placeholder) + len(built.placeholder)
    stop = max([last, *frames])
    opening = re.search(r"<(\w+)>$", built.text[:start])
    if opening and built.text.startswith(closing := f"</{opening[1]}>", stop):
        return opening.start(), stop + len(closing)
    return start, stop


def _is_lone(built: Prompt, start: int, stop: int) -> bool:
    """Whether the video is one placeholder and nothing else."""
    return built.text[start:stop] == built.placeholder


def _rendered(
    template: ChatTemplate, built: Prompt, shape: VideoShape, *, lone: bool
) -> tuple[str, str]:
    """How the template writes a video, and a whole conversation."""
    frames = len(shape.timestamps)
    question = {"type": "text", "text": TEXT}
    video = {"type": "video", "num_frames": frames, "timestamps": list(shape.timestamps)}
    names = {"image_token": built.placeholder, "video_token": built.placeholder}
    ways: list[tuple[Any, Any]] = [([video, question], [question])]
    if lone:  # an image model run on videos
        ways.append(([{"type": "image"}, question], [question]))
    failure: FlowjaxError | None = None
    for content, without in ways:
        try:
            text, plain = template.render(content, **names), template.render(without, **names)
        except FlowjaxError as error:
            failure = error
            continue
        mark = _inserted(text, plain)
        if mark.strip() and text.count(TEXT) == text.count(mark) == 1 and not _quoted(text):
            return mark, text
    # Then the released code writes the video into the message, and what stands after it.
    own = built_frame(built, video_section(built))
    between = own.between
    if between.strip() and own.before.rstrip().endswith(between.strip()):
        between = "\n"  # a turn of the question's own, which the template marks itself
    message = f"{VIDEO}{between}{TEXT}"
    for content in ([{"type": "text", "text": message}], message):
        try:
            text = template.render(content, **names)
        except FlowjaxError as error:
            failure = error
            continue
        if text.count(TEXT) == text.count(VIDEO) == 1 and not _quoted(text):
            return VIDEO, text
    raise failure or FlowjaxError(
        f"{template.path}: the chat template does not write a video and a question as they are"
    )


def _quoted(text: str) -> bool:
    """Whether a template that knows text only has written a list as Python does."""
    return "'type'" in text


def _inserted(longer: str, shorter: str) -> str:
    """What was inserted into `shorter`; nothing if that is not how they differ."""
    begin = next((i for i, (a, b) in enumerate(zip(longer, shorter, strict=False)) if a != b), None)
    begin = min(len(longer), len(shorter)) if begin is None else begin
    end = len(longer) - (len(shorter) - begin)
    # Of the places where the same was inserted, the first: "USER: <v>USER: " has several.
    if end < begin or longer[end:] != shorter[begin:]:
        return ""
    return longer[begin:end]


def chat_prompt(template: ChatTemplate, prompt: PromptOf, begins: str = "") -> PromptOf:
    """A family's prompts written with a checkpoint's template instead.

    Args:
        template: the checkpoint's.
        prompt: the family's.
        begins: the token that the tokenizer itself puts first, which the template may write, too.
    """

    def chat(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
        built = prompt(config, Question("What?", ()), shape)
        frame = frame_of(template, built, shape)
        builder = PromptBuilder()
        builder.text("system", frame.before.removeprefix(begins))
        copy_part(built, frame.section, builder)
        if frame.between:
            builder.text("instruction", frame.between)
        builder.question(question)
        after = frame.after
        if question.options:
            space = "" if after[-1:].isspace() else " "
            after = f"\nOnly give the best option.{after}{space}Best option:("
        builder.text("instruction", after)
        return builder.build()

    return chat


def copy_part(built: Prompt, section: tuple[int, int], builder: PromptBuilder) -> None:
    """Append a part of a prompt, with its spans and placeholders."""
    start, stop = section
    before = built.text[:start].count(built.placeholder)
    videos, grids = iter(built.videos[before:]), iter(built.grids[before:])
    spans = [span for span in built.spans if span.stop > start and span.stop > span.start]
    while start < stop:
        span = next((span for span in spans if span.start <= start < span.stop), None)
        if span is None:
            builder.video(built.placeholder, next(videos), next(grids, None))
            start += len(built.placeholder)
        else:
            end = min(span.stop, stop)
            builder.text(span.cell, built.text[start:end])
            start = end
