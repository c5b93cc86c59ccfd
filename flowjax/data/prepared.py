"""Frames of videos, decoded once and kept: what `flowjax prepare` writes and `--data` reads.

    OUT/prepared.json               what was prepared, and how
    OUT/questions/                  the entries, see `flowjax.data.question_cache`
    OUT/frames/00000.array_record   clips, `PER_SHARD` to a file, in their order
    OUT/failures/00000.json         of a file, clips that could not be read: number and reason

A clip is the part of one video that a question is about; questions about the same part share it. A
record is a header in JSON, which says of which file it is, and its different frames as uint8,
compressed without loss (zstd). Files are written under another name and renamed; in an object store
each is one upload, and shards are copied to the machine that reads them.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from flowjax.data.frame_rate import AtRate
from flowjax.data.sample import Prepared
from flowjax.data.video import Choose, VideoClip
from flowjax.downloads import copied
from flowjax.errors import FlowjaxError

FORMAT = 2
MANIFEST, QUESTIONS, FRAMES, FAILURES = "prepared.json", "questions", "frames", "failures"
PER_SHARD = 16
"""Clips in one file."""

HEADER = 4
"""Bytes of the header's length, little-endian."""


def shard_path(out: Path, shard: int) -> Path:
    """The file of one shard."""
    return out / FRAMES / f"{shard:05d}.array_record"


def shards_there(out: Path) -> frozenset[str]:
    """Names of the shards' files."""
    folder = out / FRAMES
    return frozenset(file.name for file in folder.iterdir()) if folder.is_dir() else frozenset()


def failures_path(out: Path, shard: int) -> Path:
    """The file that says which clips of a shard could not be read; absent where all could."""
    return out / FAILURES / f"{shard:05d}.json"


def packed(header: dict[str, Any], content: bytes) -> bytes:
    """One record."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(HEADER, "little") + text + content


@functools.lru_cache(maxsize=32)
def _reader(path: str, _changed: int) -> Any:  # noqa: ANN401 - the library has no types
    # A library that only prepared benchmarks need.
    from array_record.python.array_record_module import ArrayRecordReader  # noqa: PLC0415

    return ArrayRecordReader(path, "readahead_buffer_size:0")


def _read(prepared: Prepared) -> tuple[dict[str, Any], memoryview]:
    path = copied(prepared.shard)
    try:
        reader = _reader(str(path), path.stat().st_mtime_ns)
        content = memoryview(reader.read([prepared.place])[0])
        length = int.from_bytes(content[:HEADER], "little")
        header = json.loads(bytes(content[HEADER : HEADER + length]))
    except (ImportError, OSError, RuntimeError, ValueError, IndexError) as error:
        raise FlowjaxError(
            f"{path} cannot be read ({error}); the same `flowjax prepare` writes it again once it "
            "is removed"
        ) from None
    return header, content[HEADER + length :]


def read_prepared(prepared: Prepared, num_frames: int | Choose) -> VideoClip:
    """The frames of a clip, exactly those that decoding its video gives.

    Raises:
        FlowjaxError: other frames are asked for than were prepared, the video could not be read
            when they were, or the file is missing or damaged.
    """
    check_frames(prepared.shard.parent.parent, prepared.frames, num_frames)
    header, content = _read(prepared)
    if "error" in header:
        raise FlowjaxError(header["error"])
    frames = np.frombuffer(content, np.uint8).reshape(header["shape"])
    back = np.array(header["back"], np.int64)
    return VideoClip(
        frames if np.array_equal(back, np.arange(len(frames))) else frames[back],
        np.array(header["indices"], np.int64)[back],
        np.array(header["timestamps"], np.float64),
        header["fps"],
        header["duration"],
    )


def prepared_digest(prepared: Prepared) -> str:
    """SHA-256 of the video's file when it was prepared; empty where it could not be read."""
    return _read(prepared)[0].get("digest", "")


def check_frames(out: Path, there: int | AtRate, wanted: int | Choose) -> None:
    """Refuse other frames than were prepared.

    Raises:
        FlowjaxError: says what is there and what would be right.
    """
    if wanted == there:
        return
    if isinstance(there, int):
        found, give = f"with {there} frames of every video", f"--frames {there}"
    else:
        found = f"at {there.rate:g} frames a second, chosen as one family chooses them"
        give = f"--fps {there.rate:g} to a model of that family"
    if isinstance(wanted, int):
        reads, other = f"reads {wanted}", f"--frames {wanted}"
    elif isinstance(wanted, AtRate):
        reads, other = f"chooses others at {wanted.rate:g} a second", f"--fps {wanted.rate:g}"
        other += " and this model"
    else:
        reads, other = "chooses others", "its own rule"
    raise FlowjaxError(
        f"{out} was prepared {found}, but this model {reads}; give {give}, or prepare with {other}"
    )
