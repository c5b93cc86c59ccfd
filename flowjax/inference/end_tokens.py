"""The tokens that end a model's text, from the side files of its checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.models.checkpoint import CONFIG

GENERATION, TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
TURN_ENDS = ("<|im_end|>", "<|end|>", "</s>", "<|endoftext|>")
"""Tokens that end a turn or a text in every conversation format here, where a model has them."""


def end_tokens(path: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of the tokens that end a text.

    `eos_token_id` of `generation_config.json` and of `config.json`, `eos_token` of
    `tokenizer_config.json`, and the special tokens of `TURN_ENDS`, all that there are: chat models
    end a turn with another token than a text, and files often name only one of them.

    Args:
        path: a converted model.
        tokenizer: the model's.

    Raises:
        FlowjaxError: a file that is there cannot be read, or names no token.
    """
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    found = {_id(name, path, tokenizer) for name in TURN_ENDS if name in special}
    for name in (GENERATION, CONFIG):
        if (path / name).is_file():
            found |= _ids(read_json(path / name), path / name, tokenizer)
    if (path / TOKENIZER_CONFIG).is_file():
        value = read_json(path / TOKENIZER_CONFIG).get("eos_token")
        text = value.get("content") if isinstance(value, Mapping) else value
        if text is not None:
            found.add(_id(text, path / TOKENIZER_CONFIG, tokenizer))
    return frozenset(found)


def _ids(fields: Mapping[str, Any], path: Path, tokenizer: Tokenizer) -> set[int]:
    value = fields.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        if type(token) is not int or tokenizer.id_to_token(token) is None:
            raise FlowjaxError(f"{path}: eos_token_id is {value!r}; it must name tokens by id")
    return set(ids)


def _id(text: object, path: Path, tokenizer: Tokenizer) -> int:
    token = tokenizer.token_to_id(text) if isinstance(text, str) else None
    if token is None:
        raise FlowjaxError(f"{path}: eos_token is {text!r}, which the tokenizer does not have")
    return token
