"""Prompts as text with a token group for every character span, known when the text is written.

Groups are never found again by searching the text, so repeated words, options that are prefixes of
each other, and answers that occur in the question cannot be mistaken for one another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flowjax.errors import FlowjaxError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """A multiple-choice question, or an open one.

    options: none where the question is open.
    answer: the true option's letter, or None where it is not known.
    """

    stem: str
    options: tuple[str, ...]
    answer: str | None = None

    def __post_init__(self) -> None:
        """Check the options and the answer."""
        if not self.stem.strip():
            raise FlowjaxError("the question is empty")
        check_text(self.stem, "the question")
        if len(self.options) == 1 or len(self.options) > len(LETTERS):
            raise FlowjaxError(
                f"a question needs 2 to {len(LETTERS)} options, or none to be open; this one has "
                f"{len(self.options)}"
            )
        for letter, option in zip(self.letters, self.options, strict=True):
            if not option.strip():
                raise FlowjaxError(f"option ({letter}) is empty")
            check_text(option, f"option ({letter})")
        if self.answer is not None and self.answer not in self.letters:
            raise FlowjaxError(
                f"answer {self.answer!r} is not an option; the options are "
                f"{', '.join(self.letters) or 'none'}"
            )

    @property
    def letters(self) -> str:
        """The letters of the options, in order."""
        return LETTERS[: len(self.options)]


def check_text(text: str, what: str) -> None:
    """Refuse a string that is no text, as JSON can write it and a shell can pass it.

    Raises:
        FlowjaxError: it holds half of a surrogate pair, or bytes that are not UTF-8.
    """
    for position, character in enumerate(text):
        if "\ud800" <= character <= "\udfff":
            raise FlowjaxError(
                f"{what} is no text: character {position} is U+{ord(character):04X}, half of a pair"
            )


@dataclass(frozen=True)
class VideoShape:
    """What a prompt must know of the video it is about.

    pixels: shape of the pixel values that the family's preprocessor made of it.
    timestamps: when each frame is shown, in seconds after the video's first frame.
    duration: of the whole video, in seconds; None where it is not known.
    """

    pixels: tuple[int, ...]
    timestamps: tuple[float, ...]
    duration: float | None = None

    @property
    def seconds(self) -> float:
        """How long the video is, as far as is known: at least to its last frame here."""
        return self.timestamps[-1] if self.duration is None else self.duration


@dataclass(frozen=True)
class RopeGrid:
    """Where multimodal rotary embedding puts the tokens of one placeholder.

    frames, rows, columns: the grid that the placeholder expands to, in that order.
    step: positions on the time axis from one frame to the next; their sum is rounded down.
    """

    frames: int
    rows: int
    columns: int
    step: float


@dataclass(frozen=True)
class Span:
    """Characters `[start, stop)` of a prompt that belong to the cell `cell`."""

    cell: str
    start: int
    stop: int


@dataclass(frozen=True)
class Prompt:
    """Text with placeholders, and the token group of every part of it.

    spans: cover the text in order, without overlap; the video's placeholders lie in none.
    placeholder: the text of one placeholder token.
    videos: per placeholder in the text, the cells it expands to, each with its number of positions.
    grids: one per placeholder if the family has multimodal rotary embedding, otherwise none.
    true_option: the cell of the true option, if known.
    """

    text: str
    spans: tuple[Span, ...]
    placeholder: str
    videos: tuple[tuple[tuple[str, int], ...], ...]
    grids: tuple[RopeGrid, ...] = ()
    true_option: str | None = None


@dataclass
class PromptBuilder:
    """Writes a prompt part by part."""

    _parts: list[str] = field(default_factory=list)
    _spans: list[Span] = field(default_factory=list)
    _videos: list[tuple[tuple[str, int], ...]] = field(default_factory=list)
    _grids: list[RopeGrid] = field(default_factory=list)
    _placeholder: str = ""
    _length: int = 0
    _true_option: str | None = None

    def text(self, cell: str, text: str) -> None:
        """Append text that belongs to `cell`."""
        self._spans.append(Span(cell, self._length, self._length + len(text)))
        self._append(text)

    def video(
        self,
        placeholder: str,
        cells: Sequence[tuple[str, int]],
        grid: RopeGrid | None = None,
    ) -> None:
        """Append one placeholder token that expands to `cells` (name, number of positions).

        grid: for families with multimodal rotary embedding.
        """
        self._placeholder = placeholder
        self._videos.append(tuple(cells))
        if grid is not None:
            self._grids.append(grid)
        self._append(placeholder)

    def question(self, question: Question, *, line_feeds: bool = False) -> None:
        """Append "Question: ... Options: (A) ..." as the benchmarks write it.

        The words around the stem and the options are the cell `question_format`. Of an open
        question, the stem alone is appended.

        Args:
            question: the question.
            line_feeds: whether the line feeds after the stem and after every option, the last
                included, belong to them; else they are `question_format`, and none is last.
        """
        if not question.options:
            self.text("question_stem", question.stem)
            return
        own, between = ("\n", "") if line_feeds else ("", "\n")
        self.text("question_format", "Question: ")
        self.text("question_stem", question.stem + own)
        self.text("question_format", f"{between}Options:{own}")
        self.options(question, first=between, between=between, own=own)

    def options(
        self, question: Question, *, first: str = "", between: str = "\n", own: str = ""
    ) -> None:
        """Append "(A) ...", "(B) ...", and so on.

        first, between: what stands before the first and before every other, `question_format`.
        own: what stands after each, and belongs to it.
        """
        for letter, option in zip(question.letters, question.options, strict=True):
            self.text("question_format", first if letter == LETTERS[0] else between)
            self.text(f"option_{letter}", f"({letter}) {option}{own}")
        if question.answer is not None:
            self._true_option = f"option_{question.answer}"

    def chatml_answer(self, question: Question) -> None:
        """Append the end of a question and the start of its answer in the ChatML format."""
        turn = "<|im_end|>\n<|im_start|>assistant\n"
        if question.options:
            turn = f"\nOnly give the best option.{turn}Best option:("
        self.text("instruction", turn)

    def build(self) -> Prompt:
        """The finished prompt."""
        return Prompt(
            "".join(self._parts),
            tuple(self._spans),
            self._placeholder,
            tuple(self._videos),
            tuple(self._grids),
            self._true_option,
        )

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)
