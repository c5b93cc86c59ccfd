"""A prompt of the user's own: a text file in which `{video}`, `{question}` and `{options}` stand.

    USER: {video}
    Question: {question}
    Options:
    {options}
    Answer with one letter. ASSISTANT: Best option:(

The groups of the parts follow from the file alone: `system` is what stands before the video,
`question_format` a word with a colon right before the question and what stands between it and the
options, and `instruction` the rest. A line feed at the file's end is not part of it. The video is
written as the family writes it, with the times or numbers of its frames; options are lines
"(A) ...". Nothing else in braces is replaced, and nothing that a question says.
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from flowjax.data.prompt import Prompt, PromptBuilder, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.files import read_text
from flowjax.models.chat import PromptOf, copy_part, video_section
from flowjax.models.video_llm import VideoLLMConfig

VIDEO, QUESTION, OPTIONS = NAMES = ("video", "question", "options")
MARK = re.compile(r"\{(\w+)\}")
LABEL = re.compile(r"(\w+\s?:\s*)?\Z")
"""A word with a colon at a text's end, or nothing."""


@dataclass(frozen=True)
class PromptFile:
    """A template and where it was read from, which does not decide anything.

    Raises:
        FlowjaxError: the groups of its parts cannot be told; says why.
    """

    text: str
    path: Path = field(compare=False)

    def __post_init__(self) -> None:
        """Check that the groups of all parts can be told."""
        names = MARK.findall(self.text)
        for name in names:
            if name not in NAMES:
                raise FlowjaxError(
                    f"{self.path}: {{{name}}} is nothing that a prompt has; it has {{video}}, "
                    "{question} and {options}"
                )
            if names.count(name) > 1:
                raise FlowjaxError(
                    f"{self.path}: {{{name}}} stands there {names.count(name)} times"
                )
        for name in (VIDEO, QUESTION):
            if name not in names:
                raise FlowjaxError(f"{self.path}: {{{name}}} is missing")
        if names[0] != VIDEO:
            raise FlowjaxError(
                f"{self.path}: {{{names[0]}}} stands before {{video}}; what is before the video is "
                "the system's text, which no question is part of"
            )
        _, *between, last = self._parts
        if OPTIONS in names and not between[-1]:
            raise FlowjaxError(
                f"{self.path}: nothing stands between {{{names[1]}}} and {{{names[2]}}}, so that a "
                "token could be of both; put a blank or a line feed there"
            )
        if not last:
            raise FlowjaxError(
                f"{self.path}: nothing stands after {{{names[-1]}}}; the last token, after which "
                "the answer is read, is a group of its own, so end with words or a blank"
            )

    @property
    def _parts(self) -> list[str]:
        """The text around what is replaced."""
        return MARK.split(self.text)[::2]

    @property
    def settings(self) -> dict[str, str]:
        """For a manifest."""
        return {"template": self.text, "sha256": hashlib.sha256(self.text.encode()).hexdigest()}

    def prompts(self, family: PromptOf, begins: str = "") -> PromptOf:
        """A family's prompts written with this template.

        Args:
            family: its own, of which the video is taken.
            begins: the token that the tokenizer itself puts first, which the file may have, too.
        """
        order = MARK.findall(self.text)[1:]
        before, after_video, *middle, after = self._parts
        start = next(LABEL.finditer(after_video)).start()

        def prompt(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
            if question.options and OPTIONS not in order:
                raise FlowjaxError(f"{self.path} has no {{options}}, but the question has options")
            if OPTIONS in order and not question.options:
                raise FlowjaxError(f"{self.path} has {{options}}, but the question has none")
            built = family(config, Question("What?", ()), shape)
            if built.placeholder in self.text:
                raise FlowjaxError(
                    f"{self.path}: {built.placeholder!r} is what {{video}} is replaced by for this "
                    "model; leave it out"
                )
            builder = PromptBuilder()
            builder.text("system", before.removeprefix(begins))
            copy_part(built, video_section(built), builder)
            builder.text("instruction", after_video[:start])
            builder.text("question_format", after_video[start:])
            for name, text in zip(order, [*middle, ""], strict=True):
                if name == QUESTION:
                    builder.text("question_stem", question.stem)
                else:
                    builder.options(question)
                builder.text("question_format", text)
            builder.text("instruction", after)
            return builder.build()

        return prompt


def read_prompt_file(path: Path) -> PromptFile:
    """Read a template.

    Raises:
        FlowjaxError: it cannot be read, or the groups of its parts cannot be told.
    """
    return PromptFile(read_text(path).removesuffix("\n"), path)
