import dataclasses
import json
import re
import shutil

import pytest
from tokenizers import Tokenizer

from flowjax.asked.asked import ask
from flowjax.errors import FlowjaxError
from flowjax.inference.compile import compile_pathway
from flowjax.inference.decode import Sampling, programs
from flowjax.inference.end_tokens import end_tokens
from flowjax.models.checkpoint import load_model
from flowjax.pathway import default_pathway, write_pathway
from flowjax_experiments.generate import Asked, cuts, printable, read_choice, run, stream_text
from flowjax_experiments.shapes.tokenizer import train_tokenizer


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["What moves in the video?", "the red square"])


@pytest.fixture(scope="module")
def question(model, clip):
    return Asked(model, clip, "What moves?", tokens=6)


def test_an_open_question(question, capsys):
    result = run(question)
    shown = capsys.readouterr()
    assert len(result.tokens) == 6 and result.cache_bytes == result.full_cache_bytes
    assert shown.out.startswith(printable(result.text) + "\n\nTTFT")
    assert re.search(r"tokens   6, [\d.]+ a second\ncache .*\(100\.0%\)", shown.out)
    assert "NOTE: random weights" in shown.err


def test_between_the_tokens_of_an_open_answer_last_to_last_stays(question, capsys):
    result = run(dataclasses.replace(question, pathway="paper", tokens=2))
    assert 0 < result.cache_bytes < result.full_cache_bytes
    shown = capsys.readouterr().err
    assert "8 layers, paper form" in shown and "reads none before it" not in shown


def test_a_pathway_from_a_file(question, tmp_path, capsys):
    path = tmp_path / "found.json"
    pathway = default_pathway("pllava", 8, "strict")
    write_pathway(path, pathway)
    options = ("the red square", "nothing")
    of_file, of_name = (
        run(dataclasses.replace(question, pathway=choice, options=options))
        for choice in (str(path), "strict")
    )
    assert of_file.tokens == of_name.tokens
    assert of_file.cache_bytes < of_file.full_cache_bytes
    assert capsys.readouterr().err.count("a generated token reads none before it") == 2
    write_pathway(path, pathway.scaled(4))
    with pytest.raises(FlowjaxError, match="is for 4 layers; the model has 8"):
        run(dataclasses.replace(question, pathway=str(path)))


@pytest.mark.parametrize("choice", ["none", "paper", "strict"])
def test_a_token_after_the_first_reads_the_cache(model, clip, choice):
    """A step computes one row: as many times less as the prompt has rows that it does."""
    loaded = load_model(model)
    asked = ask(loaded, clip, "What moves?", frames=16)
    pathway = read_choice(choice, loaded, is_open=True)
    decoder = loaded.model.decoder
    compiled = compile_pathway(asked.layout, cuts(pathway, asked.layout), decoder.config, room=5)
    ready = programs(decoder, asked.embedded, compiled, Sampling())
    once, step = (program.cost_analysis()["flops"] for program in (ready.prefill, ready.decode))
    assert asked.layout.length > 80 and step < once / 10


def test_frames_of_a_generation(flowjax, model, clip):
    few, many = (
        flowjax("generate", model, clip, "What moves?", "--max-new-tokens", 2, *options)
        for options in (("--frames", 2), ("--fps", 6))
    )
    assert few.code == many.code == 0, few.err + many.err
    counts = [int(re.search(r"compiling for (\d+)", run.err)[1]) for run in (few, many)]
    assert counts[1] - counts[0] == 4 * (12 - 2)  # two seconds at six a second, four tokens each
    both = flowjax("generate", model, clip, "What moves?", "--frames", 2, "--fps", 6)
    assert both.code == 2 and "frames 2 and fps 6: give a number of frames or a rate" in both.err
    fixed = flowjax("generate", model, clip, "What moves?", "--max-pixels", 1000)
    assert fixed.code == 2 and "family pllava resizes every frame" in fixed.err


def test_the_same_seed_gives_the_same_text(question):
    one, same, other = (
        run(dataclasses.replace(question, sampling=Sampling(1.0, 0.9, seed))) for seed in (1, 1, 2)
    )
    assert one.text == same.text != other.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pathway": "loose"}, "--pathway 'loose': give paper, strict, none, or a JSON file"),
        ({"tokens": 0}, "tokens to generate: 0"),
        ({"options": ("one",)}, "2 to 26 options, or none"),
        ({"question": " "}, "the question is empty"),
    ],
)
def test_bad_input(question, change, message):
    with pytest.raises(FlowjaxError, match=message):
        run(dataclasses.replace(question, **change))


def test_text_ends_at_an_end_token(question, tmp_path):
    tokens = run(question).tokens
    end = tokens[2]
    model = tmp_path / "model"
    shutil.copytree(question.model, model)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [end]}))
    ended = run(dataclasses.replace(question, model=model))
    assert ended.tokens == tokens[: tokens.index(end)]


def test_end_tokens_of_every_file(tmp_path, tokenizer):
    def write(name, **fields):
        (tmp_path / name).write_text(json.dumps(fields))

    end = tokenizer.token_to_id("</s>")
    assert end_tokens(tmp_path, tokenizer) == {end}
    write("generation_config.json", eos_token_id=[5, 6])
    write("config.json", eos_token_id=7)
    write("tokenizer_config.json", eos_token={"content": "<image>"})
    image = tokenizer.token_to_id("<image>")
    assert end_tokens(tmp_path, tokenizer) == {end, 5, 6, 7, image}
    write("config.json", eos_token_id=10**6)
    with pytest.raises(FlowjaxError, match=r"config\.json: eos_token_id is 1000000"):
        end_tokens(tmp_path, tokenizer)
    write("config.json")
    write("tokenizer_config.json", eos_token="<none>")
    with pytest.raises(FlowjaxError, match="eos_token is '<none>', which the tokenizer does not"):
        end_tokens(tmp_path, tokenizer)


@pytest.mark.parametrize(
    "text", ["the red square moves", "où est le 猫? 🐈🐈", "  two  spaces\n\nand lines\n", ""]
)
def test_streamed_text_is_the_whole_text(tokenizer: Tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    parts = list(stream_text(tokenizer, ids))
    assert "".join(parts) == tokenizer.decode(ids)
    if text.isascii() and text:
        assert len(parts) > 3
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)


def test_a_character_that_never_ends(tokenizer: Tokenizer):
    ids = tokenizer.encode("a猫", add_special_tokens=False).ids[:-1]
    assert "".join(stream_text(tokenizer, ids)) == tokenizer.decode(ids)


def test_control_characters_do_not_reach_the_terminal():
    assert printable("a\x1b[31mb\r\n\tc\u202e") == "a\ufffd[31mb\ufffd\n\tc\ufffd"
