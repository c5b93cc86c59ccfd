"""Prompts by a template of the user's own."""

import pytest

from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.layout import encode_prompt
from flowjax.models.chat import video_section
from flowjax.models.checkpoint import load_model
from flowjax.models.prompt_file import PromptFile, read_prompt_file
from flowjax.models.registry import families
from flowjax.runs.settings import model_settings
from flowjax_convert.run import convert
from tests.oracle.conftest import ORACLE
from tests.test_open_questions import CASES, config_of

ASKED = Question("Who runs?", ("A dog.", "A cat."), "B")
TIMES = tuple(map(float, range(16)))
MINE = "Watch.\n{video} Tell me.\nQ: {question}\n{options}\nOne letter, please: ("


def cells(prompt):
    """The group of every character; of the video's placeholders none."""
    found = [""] * len(prompt.text)
    for span in prompt.spans:
        found[span.start : span.stop] = [span.cell] * (span.stop - span.start)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_family_s_own_prompt_as_a_file(name, tmp_path):
    """What a file writes that says the same is the same, group by group."""
    config, shape = config_of(name), VideoShape(CASES[name][1], (0.0, 1.0))
    family = families()[name].prompt
    own = family(config, ASKED, shape)
    start, stop = video_section(own)
    stem, *options = (
        span for span in own.spans if span.cell.startswith(("question_stem", "option_"))
    )
    text = (
        f"{own.text[:start]}{{video}}{own.text[stop : stem.start]}{{question}}"
        f"{own.text[stem.start + len(ASKED.stem) : options[0].start]}{{options}}"
        f"{own.text[options[0].start :].partition('A cat.')[2]}"
    )
    path = tmp_path / "my prompt.txt"
    path.write_text(text + "\n", encoding="utf-8")  # as editors end a file
    made = read_prompt_file(path).prompts(family)(config, ASKED, shape)
    assert made.text == own.text
    assert (made.videos, made.grids, made.placeholder) == (own.videos, own.grids, own.placeholder)
    assert made.true_option == "option_B"
    theirs, ours = cells(own), cells(made)
    # Some families count the line feeds around the question to it or to its options.
    differing = {own.text[i] for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b}
    assert differing <= {"\n"}, [
        (own.text[i], a, b) for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b
    ]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    out = tmp_path_factory.mktemp("prompt") / "model"
    convert(ORACLE / "pllava", out)
    return load_model(out, parameters=False)


def written(tmp_path, text):
    path = tmp_path / "prompt.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_token_s_group(loaded, tmp_path):
    asked = loaded.asked_by(written(tmp_path, MINE))
    prompt = asked.family.prompt(asked.config, ASKED, VideoShape((16,), TIMES))
    before, _, after = prompt.text.partition(prompt.placeholder)
    assert before == "Watch.\n"
    assert after.replace(prompt.placeholder, "").endswith(
        " Tell me.\nQ: Who runs?\n(A) A dog.\n(B) A cat.\nOne letter, please: ("
    )
    found = cells(prompt)
    groups = {
        "Watch.": "system", "Tell me.": "instruction", "Q:": "question_format",
        "Who runs?": "question_stem", "(A) A dog.": "option_A", "(B) A cat.": "option_B",
        "One letter, please: (": "instruction",
    }  # fmt: skip
    for text, cell in groups.items():
        start = prompt.text.index(text)
        assert set(found[start : start + len(text)]) == {cell}
    encoded = encode_prompt(prompt, asked.tokenizer)
    for cell, text in (("question_stem", "Who runs?"), ("option_B", "(B) A cat.")):
        ids = encoded.ids[encoded.layout.positions(cell)].tolist()
        assert asked.tokenizer.decode(ids).strip().replace(" ", "") == text.replace(" ", "")
    assert encoded.layout.cells[-1] == "last"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{question}\n{options}\n(", "{video} is missing"),
        ("{video}\n{options}\n(", "{question} is missing"),
        ("{video}{question}\n{question}\n(", "{question} stands there 2 times"),
        ("{video} {questoin}", "{questoin} is nothing that a prompt has"),
        ("{question} {video} (", "{question} stands before {video}"),
        ("{options} {video} {question} (", "{options} stands before {video}"),
        ("{video}{question}{options} (", "nothing stands between {question} and {options}"),
        ("{video} {question} {options}", "nothing stands after {options}"),
        ("", "{video} is missing"),
    ],
)
def test_groups_that_cannot_be_told_are_refused(loaded, tmp_path, text, words):
    with pytest.raises(FlowjaxError) as error:
        loaded.asked_by(written(tmp_path, text))
    assert words in str(error.value) and "prompt.txt" in str(error.value)


def test_questions_that_do_not_fit_are_refused(loaded, tmp_path):
    shape = VideoShape((16,), TIMES)
    no_options = "{video}\n{question} Answer:"
    for text, question, words in (
        (MINE, Question("Who?", ()), "has {options}, but the question has none"),
        (no_options, ASKED, "has no {options}, but the question has options"),
        ("<image>" + MINE, ASKED, "'<image>' is what {video} is replaced by"),
    ):
        asked = loaded.asked_by(written(tmp_path, text))
        with pytest.raises(FlowjaxError, match=words.replace("{", r"\{")):
            asked.family.prompt(asked.config, question, shape)
    asked = loaded.asked_by(written(tmp_path, no_options))
    prompt = asked.family.prompt(asked.config, Question("Who?", ()), shape)
    assert prompt.text.endswith("\nWho? Answer:")


def test_what_a_question_says_is_text(loaded, tmp_path):
    nasty = ("{options} {video}", "{{7*7}}", "<script>", "{% raw %}", "../../etc")
    asked = loaded.asked_by(written(tmp_path, "{{7*7}} {} {video}\n" + MINE.partition("\n")[2][8:]))
    question = Question("{video}{question}", nasty, "A")
    prompt = asked.family.prompt(asked.config, question, VideoShape((16,), TIMES))
    texts = {span.cell: prompt.text[span.start : span.stop] for span in prompt.spans}
    assert prompt.text.startswith("{{7*7}} {} ")
    assert texts["question_stem"] == "{video}{question}"
    for letter, text in zip("ABCDE", nasty, strict=True):
        assert texts[f"option_{letter}"] == f"({letter}) {text}"


def test_where_a_file_lies_does_not_decide(loaded, tmp_path):
    (tmp_path / "other").mkdir()
    one, other = (loaded.asked_by(written(at, MINE)) for at in (tmp_path, tmp_path / "other"))
    assert model_settings(one) == model_settings(other)
    assert model_settings(one)["prompt"]["template"] == MINE
    assert one.asked_by(other.prompt) is one and one.prompt == PromptFile(MINE, tmp_path)
    assert one.asked_by("reference").prompt == "reference"
