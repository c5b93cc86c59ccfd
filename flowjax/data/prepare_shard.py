"""Decoding the clips of one shard of a prepared benchmark, in a process of its own."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flowjax.data.clip import read_clip, video_digest
from flowjax.data.frame_rate import AtRate
from flowjax.data.prepared import PER_SHARD, failures_path, packed, shard_path
from flowjax.data.sample import Sample
from flowjax.downloads import size_of
from flowjax.errors import FlowjaxError
from flowjax.files import atomically, writing

OPTIONS = "group_size:1,zstd:-5,max_parallelism:1"
"""Level 1 of zstd makes frames of encoded videos 5% smaller, and takes twice as long to read."""


class Written(NamedTuple):
    """What came of one shard.

    failed: why clips could not be read, by their number.
    size: bytes of the file.
    """

    shard: int
    failed: dict[int, str]
    size: int


def write_shard(
    out: Path, shard: int, samples: Sequence[Sample], frames: int | AtRate, size: int | None
) -> Written:
    """Decode the clips of one shard and write its file, complete or not at all.

    Args:
        out: the folder.
        shard: its number.
        samples: one for each of its clips.
        frames: of each, or what chooses them.
        size: pixels that the short side of larger frames is made; None to keep their size.

    Raises:
        FlowjaxError: the folder cannot be written. A video that cannot be read is recorded.
    """
    try:
        from array_record.python.array_record_module import ArrayRecordWriter  # noqa: PLC0415
    except ImportError as error:
        raise FlowjaxError(
            f"prepared benchmarks are ArrayRecord files, whose library is not here: {error}"
        ) from error
    path, failed = shard_path(out, shard), dict[int, str]()

    def write(temporary: Path) -> None:
        writer = ArrayRecordWriter(str(temporary), OPTIONS)
        try:
            for place, sample in enumerate(samples):
                try:
                    record = _record(sample, frames, size)
                except FlowjaxError as error:
                    failed[shard * PER_SHARD + place] = str(error)
                    record = packed({"error": str(error)}, b"")
                writer.write(record)
        finally:
            writer.close()
        note = failures_path(out, shard)  # before the shard itself has its name
        note.unlink(missing_ok=True)
        if failed:
            text = json.dumps({str(clip): why for clip, why in failed.items()}) + "\n"
            atomically(note, lambda file: file.write_text(text, encoding="utf-8"))

    with writing(path):
        try:
            atomically(path, write)
        except (RuntimeError, ValueError) as error:  # of the library, such as for a full disk
            raise FlowjaxError(f"{path} cannot be written: {error}") from error
    return Written(shard, failed, size_of(path))


def _record(sample: Sample, frames: int | AtRate, size: int | None) -> bytes:
    digest = video_digest(sample.video)
    clip = read_clip(sample, frames)
    indices, first, back = np.unique(clip.indices, return_index=True, return_inverse=True)
    different = clip.frames[first]
    if size is not None:
        different = smaller(different, size)
    header = {
        "digest": digest,
        "shape": different.shape,
        "indices": indices.tolist(),
        "back": back.tolist(),
        "timestamps": clip.timestamps.tolist(),
        "fps": clip.fps,
        "duration": clip.duration,
    }
    return packed(header, np.ascontiguousarray(different).tobytes())


def smaller(
    frames: UInt8[np.ndarray, "frames height width 3"], size: int
) -> UInt8[np.ndarray, "frames h w 3"]:
    """Frames whose short side is at most `size`, the long side in proportion."""
    height, width = frames.shape[1:3]
    short = min(height, width)
    if short <= size:
        return frames
    shape = (round(width * size / short), round(height * size / short))
    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(one).resize(shape, bicubic)) for one in frames])
