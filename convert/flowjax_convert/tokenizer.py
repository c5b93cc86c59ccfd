"""A checkpoint's tokenizer, in whichever form its files have it.

`tokenizer.json`, or `vocab.json` and `merges.txt`, or `tokenizer.model`, with the tokens that were
added later. Ids are those of the fast tokenizers of `transformers` 4, which the releases use.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import BPE

from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.models.checkpoint import TOKENIZER, read_tokenizer
from flowjax_convert.sentencepiece_model import Kind, SentencePieceModel, read_sentencepiece

VOCABULARY, MERGES, MODEL = "vocab.json", "merges.txt", "tokenizer.model"
TOKENIZER_CONFIG, ADDED, SPECIAL = (
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
FILES = (TOKENIZER, VOCABULARY, MERGES, MODEL, TOKENIZER_CONFIG, ADDED, SPECIAL)
"""Every file that is read here."""

SPACE = "▁"
"""What SentencePiece writes for a blank."""

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen2's tokenizer cuts text before it joins bytes, as published with the model."""

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Settings:
    """What the JSON files around a vocabulary say; any of them may be absent."""

    directory: Path
    config: Mapping[str, Any]
    special: Mapping[str, Any]
    added: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The tokenizer's class, without the mark of the fast ones."""
        return str(self.config.get("tokenizer_class") or "").removesuffix("Fast")

    def flag(self, name: str, default: bool) -> bool:
        """A field of `tokenizer_config.json` that is true or false."""
        value = self.config.get(name)
        if value is not None and not isinstance(value, bool):
            raise FlowjaxError(
                f"{self.directory / TOKENIZER_CONFIG}: {name} is {value!r}; it must be true or "
                "false"
            )
        return default if value is None else value

    def role(self, name: str) -> str | None:
        """The token of a role such as `bos_token`."""
        for fields in (self.config, self.special):
            if fields.get(name) is not None:
                return _content(fields[name])
        return None


@dataclass(frozen=True)
class CheckpointTokenizer:
    """The tokenizer of a checkpoint.

    stored: whether the checkpoint's own `tokenizer.json` is all of it.
    """

    tokenizer: Tokenizer
    stored: bool

    @property
    def text(self) -> str:
        """What a `tokenizer.json` of it holds."""
        return self.tokenizer.to_str(pretty=True)


def checkpoint_tokenizer(directory: Path) -> CheckpointTokenizer:
    """The tokenizer of a checkpoint directory.

    Raises:
        FlowjaxError: no file has one, or one of them is damaged or of a kind that is not known.
    """
    config, special, added = (
        _optional(directory / name) for name in (TOKENIZER_CONFIG, SPECIAL, ADDED)
    )
    settings = Settings(directory, config, special, added)
    if (directory / TOKENIZER).is_file():
        tokenizer = read_tokenizer(directory / TOKENIZER)
        missing = [
            (source, index, token)
            for source, index, token in _later(settings)
            if index is not None and tokenizer.token_to_id(token.content) is None
        ]
        first = tokenizer.get_vocab_size()
        # Ids that do not go on where the file ends are those of another vocabulary: it holds alone.
        if [index for _, index, _ in missing] != list(range(first, first + len(missing))):
            missing = []
        _add_tokens(tokenizer, directory, missing)
        return CheckpointTokenizer(tokenizer, stored=not missing)
    if (directory / VOCABULARY).is_file() and (directory / MERGES).is_file():
        tokenizer = _byte_level(settings)
    elif (directory / MODEL).is_file():
        tokenizer = _sentencepiece(read_sentencepiece(directory / MODEL), settings)
    else:
        raise FlowjaxError(
            f"{directory / TOKENIZER} is missing, and so are {VOCABULARY} with {MERGES}, and "
            f"{MODEL}; fetch the checkpoint's tokenizer again"
        )
    _add_tokens(tokenizer, directory, _later(settings))
    return CheckpointTokenizer(tokenizer, stored=False)


def _byte_level(settings: Settings) -> Tokenizer:
    """Byte pairs of `vocab.json` and `merges.txt`: the tokenizers of GPT-2 and Qwen2."""
    directory, kind = settings.directory, settings.kind
    if kind not in ("", "Qwen2Tokenizer", "GPT2Tokenizer"):
        raise FlowjaxError(
            f"{directory / TOKENIZER_CONFIG}: tokenizer_class is {kind!r}; with {VOCABULARY} and "
            f"{MERGES}, Qwen2Tokenizer and GPT2Tokenizer are known; write a {TOKENIZER} with "
            "transformers: AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)"
        )
    try:
        vocabulary, merges = BPE.read_file(str(directory / VOCABULARY), str(directory / MERGES))
        tokenizer = Tokenizer(BPE(vocabulary, merges, fuse_unk=False, byte_fallback=False))
    except Exception as error:  # the library raises nothing narrower
        reason = str(error).splitlines()[0]
        raise FlowjaxError(
            f"{directory / VOCABULARY} and {MERGES} are not a tokenizer: {reason}"
        ) from error
    prefix = settings.flag("add_prefix_space", False)
    if kind == "GPT2Tokenizer":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    else:
        cut = pre_tokenizers.Split(Regex(QWEN2), behavior="isolated", invert=False)
        level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _sentencepiece(model: SentencePieceModel, settings: Settings) -> Tokenizer:
    """The tokenizers of Llama and its relatives.

    `legacy` says where a blank is put before text: before every part between special tokens, or,
    if false, before the first only.
    """
    vocabulary = {piece.text: index for index, piece in enumerate(model.pieces)}
    tokenizer = Tokenizer(
        BPE(
            vocabulary,
            merges(model, vocabulary),
            unk_token=model.unknown,
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
        )
    )
    prefix = settings.flag("add_prefix_space", model.dummy_prefix)
    if settings.flag("legacy", True):
        before = [normalizers.Prepend(SPACE)] if prefix else []
        tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", SPACE)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=SPACE, prepend_scheme="first" if prefix else "never", split=False
        )
    stripped = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    )
    for piece in model.pieces:
        control = piece.kind in (Kind.CONTROL, Kind.UNKNOWN)
        if control or piece.kind == Kind.USER_DEFINED:
            token = AddedToken(piece.text, normalized=False, special=control)
            tokenizer.add_special_tokens([token]) if control else tokenizer.add_tokens([token])
    _surround(tokenizer, settings)
    return tokenizer


def merges(model: SentencePieceModel, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pairs that make each piece, the best piece first.

    Of pieces with equal scores, those with the longer left, then right part come first, then those
    with the smaller ids of piece, left and right part.
    """
    pairs = []
    for piece in model.pieces:
        halves = (
            (piece.text[:cut], piece.text[cut:])
            for cut in range(1, len(piece.text))
            if piece.text[:cut] in vocabulary and piece.text[cut:] in vocabulary
        )
        ordered = sorted(halves, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        pairs += [(piece.score, pair) for pair in ordered]
    pairs.sort(key=lambda entry: (-entry[0], -len(entry[1][0]), -len(entry[1][1])))
    return [pair for _, pair in pairs]


def _surround(tokenizer: Tokenizer, settings: Settings) -> None:
    """Have the first and the last token added to every text, as the configuration says."""
    path = settings.directory / TOKENIZER_CONFIG
    tokens: dict[str, str] = {}
    for role, name, default in (
        ("bos_token", "add_bos_token", True),
        ("eos_token", "add_eos_token", False),
    ):
        if settings.flag(name, default):
            token = settings.role(role) or {"bos_token": "<s>", "eos_token": "</s>"}[role]
            if tokenizer.token_to_id(token) is None:
                raise FlowjaxError(f"{path}: {role} is {token!r}, which is not in the vocabulary")
            tokens[role] = token
    if tokens:
        single = [tokens.get("bos_token"), "$A", tokens.get("eos_token")]
        ids = [(token, tokenizer.token_to_id(token)) for token in tokens.values()]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[part for part in single if part is not None], special_tokens=ids
        )


Later = tuple[str, int | None, AddedToken]
"""The file that names a token, its id there, and the token."""


def _add_tokens(tokenizer: Tokenizer, directory: Path, later: Iterable[Later]) -> None:
    """Add the tokens that came after the vocabulary, each with the id that its file gives.

    Raises:
        FlowjaxError: the vocabulary has another token or another number of tokens than the file
            was written for.
    """
    for source, index, token in later:
        add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
        add([token])
        known = tokenizer.token_to_id(token.content)
        if index is not None and known != index:
            raise FlowjaxError(
                f"{directory / source}: token {token.content!r} has id {index}, but "
                f"{known} in the vocabulary; the files belong to different tokenizers"
            )


def _later(settings: Settings) -> Iterator[Later]:
    """Added tokens by id, then special tokens that have none."""
    special = {content for content in map(settings.role, ROLES) if content is not None}
    for fields in (settings.config, settings.special):
        for name in ("additional_special_tokens", "extra_special_tokens"):
            extra = fields.get(name) or []
            tokens = extra.values() if isinstance(extra, Mapping) else extra
            special |= {_content(token) for token in tokens}
    written = settings.config.get("added_tokens_decoder") or {}
    entries: dict[int, tuple[str, AddedToken]] = {}
    for content, index in settings.added.items():
        token = AddedToken(content, normalized=content not in special, special=content in special)
        entries[_id(index, settings.directory / ADDED, content)] = (ADDED, token)
    for index, fields in written.items():
        content = _content(fields)
        token = AddedToken(
            content,
            lstrip=bool(fields.get("lstrip", False)),
            rstrip=bool(fields.get("rstrip", False)),
            single_word=bool(fields.get("single_word", False)),
            normalized=bool(fields.get("normalized", True)),
            special=bool(fields.get("special", False)),
        )
        number = _id(index, settings.directory / TOKENIZER_CONFIG, content)
        entries[number] = (TOKENIZER_CONFIG, token)
    for index, (source, token) in sorted(entries.items()):
        yield source, index, token
    named = {token.content for _, token in entries.values()}
    for content in sorted(special - named):
        yield SPECIAL, None, AddedToken(content, normalized=False, special=True)


def _id(value: object, path: Path, token: str) -> int:
    """An id, which JSON has as a number or, as a key, in digits."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or value < 0:
        raise FlowjaxError(f"{path}: the id of token {token!r} is {value!r}; it must be a number")
    return value


def _content(token: object) -> str:
    """The text of a token that a file gives as it is or with its flags."""
    if isinstance(token, Mapping):
        token = token.get("content")
    if not isinstance(token, str):
        raise FlowjaxError(f"token {token!r} in the tokenizer's files is not text")
    return token


def _optional(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.is_file() else {}
