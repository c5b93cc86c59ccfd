"""Token groups from character spans, on real tokenizers and hostile texts."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from flowjax.data.prompt import Prompt, PromptBuilder, Question
from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout, encode_prompt

ORACLE = "tests/oracle/data"
LLAMA = Tokenizer.from_file(f"{ORACLE}/pllava/tokenizer.json")
QWEN = Tokenizer.from_file(f"{ORACLE}/videollama3/tokenizer.json")


def build(question: Question, placeholder: str = "<image>") -> Prompt:
    builder = PromptBuilder()
    builder.text("system", "Watch the video. USER: ")
    builder.video(placeholder, [("frame_0", 3), ("frame_1", 3)])
    builder.text("instruction", "\n USER: ")
    builder.question(question)
    builder.text("instruction", " \nOnly give the best option. ASSISTANT:Best option:(")
    return builder.build()


def decoded(encoded, group: str, tokenizer=LLAMA) -> str:
    """A group's text from the ids alone, spaces aside."""
    text = tokenizer.decode([int(x) for x in encoded.ids[encoded.layout.positions(group)]])
    return re.sub(r"\s", "", text)


HOSTILE = [
    Question("What is red?", ("red", "red cube", "red cube is red"), "B"),
    Question("Is the red cube (A) or (B)?", ("(B) red", "(A) red"), "A"),
    Question("Options: what? Options:", ("Options:", "Question: what?"), "B"),
    Question("Where?\nOptions:\n(A) left", ("left", "left", "left"), "C"),
    Question("Où est le 猫? 🐈", ("à gauche 左", "à droite", "🐈🐈"), "C"),
    Question("x", ("x", "xx", "xxx", "x x"), "D"),
    Question("  spaces  around  ", (" a ", "  b"), "A"),
]


@pytest.mark.parametrize("question", HOSTILE, ids=lambda question: question.stem[:12])
def test_groups_hold_exactly_their_text(question):
    encoded = encode_prompt(build(question), LLAMA)
    layout = encoded.layout
    for letter, option in zip(question.letters, question.options, strict=True):
        expected = re.sub(r"\s", "", f"({letter}){option}")
        assert decoded(encoded, f"option_{letter}") == expected
    assert decoded(encoded, "question_stem") == re.sub(r"\s", "", question.stem)
    assert decoded(encoded, "true_option") == decoded(encoded, f"option_{question.answer}")
    parts = sorted(np.concatenate([layout.positions(name) for name in layout.cells]).tolist())
    assert parts == list(range(layout.length))
    assert layout.positions("last").tolist() == [layout.length - 1]


WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=20
).filter(lambda text: re.sub(r"\s", "", text) and "<" not in text and "▁" not in text)


@settings(max_examples=200)
@given(WORDS, st.lists(WORDS, min_size=2, max_size=5), st.data())
def test_any_text_is_cut_where_its_characters_are(stem, options, data):
    answer = data.draw(st.sampled_from("ABCDE"[: len(options)]))
    question = Question(stem, tuple(options), answer)
    for tokenizer, placeholder in ((LLAMA, "<image>"), (QWEN, "<image>")):
        if tokenizer.token_to_id(placeholder) is None:
            continue
        prompt = build(question, placeholder)
        encoded = encode_prompt(prompt, tokenizer)
        layout = encoded.layout
        assert len(encoded.ids) == layout.length
        assert encoded.video_position.tolist() == layout.positions("video").tolist()
        by_token = tokenizer.encode(prompt.text)
        text_positions = np.setdiff1d(np.arange(layout.length), encoded.video_position)
        offsets = [
            offset
            for token, offset in zip(by_token.ids, by_token.offsets, strict=True)
            if token != tokenizer.token_to_id(placeholder)
        ]
        for position, (start, stop) in zip(text_positions[:-1], offsets[:-1], strict=True):
            inside = prompt.text[start:stop].strip()
            if not inside:
                continue
            cell = layout.cells[layout.cell[position]]
            touching = {
                span.cell
                for span in prompt.spans
                if prompt.text[max(start, span.start) : min(stop, span.stop)].strip()
                and span.start < stop
                and start < span.stop
            }
            assert cell in touching


def test_a_control_token_in_a_question_is_refused():
    for question in (
        Question("What is <image>?", ("a", "b")),
        Question("What?", ("a", "</s>b")),
    ):
        with pytest.raises(FlowjaxError, match="control token"):
            encode_prompt(build(question), LLAMA)


def test_a_placeholder_the_tokenizer_does_not_know_is_refused():
    with pytest.raises(FlowjaxError, match=r"tokenizer\.json does not belong"):
        encode_prompt(build(Question("What?", ("a", "b")), "<nothing>"), LLAMA)


def test_a_group_that_does_not_exist_lists_those_that_do():
    layout = TokenLayout.from_cells(["system", "frame_0", "question_stem", "last"])
    with pytest.raises(FlowjaxError, match=r"'option_A' does not exist.*system, frame_0"):
        layout.positions("option_A")
    with pytest.raises(FlowjaxError, match="'true_option' does not exist"):
        layout.cells_of("true_option")


@pytest.mark.parametrize(
    ("stem", "options", "answer", "message"),
    [
        ("What?", ("one",), None, "2 to 26 options.*has 1"),
        ("What?", (), "A", "answer 'A' is not an option; the options are none"),
        ("What?", ("one", "two"), "C", "answer 'C' is not an option.*A, B"),
        ("What?", ("one", "two"), "a", "answer 'a' is not an option"),
        ("What?", ("one", " "), None, r"option \(B\) is empty"),
        (" ", ("one", "two"), None, "question is empty"),
    ],
)
def test_bad_questions(stem, options, answer, message):
    with pytest.raises(FlowjaxError, match=message):
        Question(stem, options, answer)


NAMES = ["system", "frame_0", "frame_0", "frame_1", "option_A", "option_B", "last"]


def test_layouts_are_equal_where_every_position_has_the_same_groups():
    one, other = (TokenLayout.from_cells(NAMES, "option_A") for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert one != TokenLayout.from_cells(NAMES, "option_B")
    assert one != TokenLayout.from_cells(["system", *NAMES], "option_A")
    assert one.split(["frame_0"]) == other.split(["frame_0"]) != one
    with pytest.raises(ValueError, match="read-only"):
        one.cell[0] = 1


@pytest.mark.parametrize(
    ("cells", "cell", "unions", "says"),
    [
        ((), [], {}, "0 cells"),
        (("a", "b"), [0, 0], {}, "2 cells must be numbered from 0"),
        (("a", "b"), [1, 0], {}, "in the order of their first positions"),
        (("a",), [0, 1], {}, "1 cells"),
        (("a", "a"), [0, 1], {}, "'a' names two groups"),
        (("a", "b"), [0, 1], {"b": ("a",)}, "'b' names two groups"),
        (("a", "b"), [0, 1], {"c": ("d",)}, "'c' is made of 'd', which is no cell"),
    ],
)
def test_a_layout_checks_itself(cells, cell, unions, says):
    with pytest.raises(FlowjaxError, match=says):
        TokenLayout(cells, np.array(cell, np.int32), unions)
