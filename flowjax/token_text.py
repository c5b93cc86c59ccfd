"""Tokens as text, each on its own."""

from collections.abc import Iterable

from tokenizers import Tokenizer

BEFORE = "A"
"""A token that others are decoded after: at the start of a text, many tokenizers drop blanks."""


def token_texts(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    """Every token as it stands inside a text: blanks before it are kept, special tokens are shown.

    A token that is part of a character only reads as a replacement character, and an id beyond the
    tokenizer's own, as models with padded vocabularies have, as nothing.
    """
    tokens = list(ids)
    before = tokenizer.token_to_id(BEFORE)
    start = [] if before is None else [before]
    known = tokenizer.decode(start, skip_special_tokens=False)
    pairs = [[*start, token] for token in tokens]
    texts = tokenizer.decode_batch(pairs, skip_special_tokens=False)
    special = tokenizer.get_added_tokens_decoder()
    return [
        special[token].content if token in special else text[len(known) :]
        for token, text in zip(tokens, texts, strict=True)
    ]


def answer_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as an answer: without the blanks around it."""
    return token_texts(tokenizer, [token])[0].strip()
