"""Tokenizers in every form: ids as recorded from fast tokenizers by `record_tokenizers.py`."""

import base64
import gzip
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from flowjax.errors import FlowjaxError
from flowjax_convert.tokenizer import checkpoint_tokenizer

RECORDED = json.loads(
    gzip.decompress((Path(__file__).parent / "recorded" / "tokenizers.json.gz").read_bytes())
)
TEXTS = RECORDED.pop("texts")


@pytest.fixture
def files(tmp_path):
    """Write the files of a recorded case."""

    def write(case):
        for name, content in RECORDED[case]["files"].items():
            (tmp_path / name).write_bytes(base64.b64decode(content))
        return tmp_path

    return write


@pytest.mark.parametrize("case", RECORDED)
def test_ids_are_those_of_the_fast_tokenizer(case, files):
    read = checkpoint_tokenizer(files(case))
    assert not read.stored
    # What is written beside a converted model.
    written = Tokenizer.from_str(read.text)
    for tokenizer in (read.tokenizer, written):
        for text, ids in zip(TEXTS, RECORDED[case]["ids"], strict=True):
            assert tokenizer.encode(text).ids == ids, text


def test_the_recorded_texts_try_every_kind_of_token():
    """Bytes, added tokens and the ends that a tokenizer adds."""
    for case, recorded in RECORDED.items():
        assert len({tuple(ids) for ids in recorded["ids"]}) > 9
        empty = recorded["ids"][TEXTS.index("")]
        expected = {"llama_legacy": [1], "llama_new": [1], "llama_ends": [2]}
        assert empty == expected.get(case, [])


def test_a_whole_tokenizer_json_is_kept(files):
    folder = files("qwen2_json")
    (folder / "tokenizer_config.json").unlink()
    assert checkpoint_tokenizer(folder).stored


def test_a_tokenizer_json_of_another_vocabulary_holds_alone(files):
    folder = files("qwen2_json")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    token = {"content": "<later>", "special": True}
    config["added_tokens_decoder"] = {"151643": token}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    read = checkpoint_tokenizer(folder)
    assert read.stored and read.tokenizer.token_to_id("<later>") is None


def test_ids_that_contradict_the_vocabulary(files):
    folder = files("qwen2")
    added = json.loads((folder / "added_tokens.json").read_text())
    (folder / "added_tokens.json").write_text(json.dumps(added | {"<extra>": 7000}))
    with pytest.raises(FlowjaxError, match=r"added_tokens\.json: token '<extra>' has id 7000"):
        checkpoint_tokenizer(folder)


@pytest.mark.parametrize("case", ["llama_legacy", "qwen2"])
def test_a_damaged_vocabulary(case, files):
    folder = files(case)
    name = "tokenizer.model" if case == "llama_legacy" else "merges.txt"
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2] + b"\xff\x07\x00oops")
    with pytest.raises(FlowjaxError, match=name):
        checkpoint_tokenizer(folder)


def test_no_tokenizer_at_all(files):
    folder = files("qwen2")
    (folder / "merges.txt").unlink()
    with pytest.raises(FlowjaxError, match=r"vocab\.json with merges\.txt, and tokenizer\.model"):
        checkpoint_tokenizer(folder)


def test_another_class(files):
    folder = files("qwen2")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BloomTokenizerFast"}')
    with pytest.raises(FlowjaxError, match="tokenizer_class is 'BloomTokenizer'"):
        checkpoint_tokenizer(folder)
