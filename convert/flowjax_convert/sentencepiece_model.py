"""The file `tokenizer.model` of SentencePiece (Kudo and Richardson 2018, arXiv 1808.06226).

It is one protobuf message, `ModelProto` of `sentencepiece_model.proto`; only the few
fields that say how to cut text into pieces are read here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from flowjax.errors import FlowjaxError

BPE = 2
"""The number of byte pair encoding in `TrainerSpec.model_type`."""


class Kind(IntEnum):
    """What a piece is, by its number in the file."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """An entry of the vocabulary; its id is its number in the file."""

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True)
class SentencePieceModel:
    """What a file says.

    dummy_prefix: whether text is cut as if a blank stood before it.
    byte_fallback: whether characters without a piece become pieces of their bytes.
    """

    pieces: tuple[Piece, ...]
    dummy_prefix: bool
    byte_fallback: bool

    @property
    def unknown(self) -> str:
        """The piece that stands for what has no other."""
        return next(piece.text for piece in self.pieces if piece.kind == Kind.UNKNOWN)


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a file of byte pairs.

    Raises:
        FlowjaxError: missing, damaged, or of another kind of model.
    """
    try:
        message = _message(path.read_bytes())
        pieces = tuple(_piece(_message(_bytes(value))) for value in message.get(1, ()))
        trainer = _message(_bytes(message.get(2, [b""])[-1]))
        normalizer = _message(_bytes(message.get(3, [b""])[-1]))
        kind = _number(trainer, 3, 1)
        fallback = bool(_number(trainer, 35, 0))
        prefix = bool(_number(normalizer, 3, 1))
    except OSError as error:
        raise FlowjaxError(f"{path}: not readable: {error.strerror}") from error
    except (ValueError, IndexError, struct.error) as error:
        raise FlowjaxError(f"{path}: not a SentencePiece model: {error}") from error
    if not any(piece.kind == Kind.UNKNOWN for piece in pieces):
        raise FlowjaxError(f"{path}: not a SentencePiece model: no piece stands for unknown text")
    if kind != BPE:
        raise FlowjaxError(
            f"{path} is not a model of byte pairs (model_type {kind}, only {BPE} is supported); "
            "write a tokenizer.json with transformers: "
            "AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)"
        )
    return SentencePieceModel(pieces, prefix, fallback)


_Value = int | bytes


def _piece(message: dict[int, list[_Value]]) -> Piece:
    text = _bytes(message[1][-1]).decode() if 1 in message else ""
    score = struct.unpack("<f", _bytes(message[2][-1]))[0] if 2 in message else 0.0
    return Piece(text, score, Kind(_number(message, 3, Kind.NORMAL)))


def _message(data: bytes) -> dict[int, list[_Value]]:
    """Values by field number: whole numbers, or the bytes of anything else."""
    fields: dict[int, list[_Value]] = {}
    for number, value in _fields(data):
        fields.setdefault(number, []).append(value)
    return fields


def _fields(data: bytes) -> Iterator[tuple[int, _Value]]:
    start = 0
    while start < len(data):
        key, start = _varint(data, start)
        match key & 7:
            case 0:
                value, start = _varint(data, start)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, start = _varint(data, start)
            case 5:
                size = 4
            case wire:
                raise ValueError(f"wire type {wire}")
        if start + size > len(data):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, data[start : start + size]
        start += size


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[start]
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start
    raise ValueError("a number of more than ten bytes")


def _number(message: dict[int, list[_Value]], field: int, default: int) -> int:
    value = message.get(field, [default])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} is not a number")
    return value


def _bytes(value: _Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes are expected")
    return value
