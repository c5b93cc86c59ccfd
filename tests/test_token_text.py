"""Tokens as text: the special ones shown, blanks kept, in each kind of tokenizer."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from flowjax.token_text import answer_text, token_texts


def sentencepiece() -> Tokenizer:
    pieces = ["<unk>", "</s>", "<0x0A>", "A", "\u2581A", "\u2581left", "ft", "\u2581"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


def byte_level() -> Tokenizer:
    pieces = ["A", "\u0120A", "\u0120left", "ft", "\u010a", "\u0120"]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "texts"),
    [
        (sentencepiece(), ["<unk>", "</s>", "\n", "A", " A", " left", "ft", " ", ""]),
        (byte_level(), ["A", " A", " left", "ft", "\n", " ", "<|im_end|>", ""]),
    ],
)
def test_every_token(tokenizer, texts):
    assert token_texts(tokenizer, range(len(texts))) == texts  # the last id is beyond its own
    assert [answer_text(tokenizer, i) for i in range(len(texts))] == [t.strip() for t in texts]
