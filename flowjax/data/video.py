"""Frames of a video file, decoded with decord on the CPU."""

import io
import math
import multiprocessing
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import decord
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from flowjax.data.container import Container, inspect
from flowjax.data.frame_rate import middles
from flowjax.data.sample import Clock
from flowjax.errors import FlowjaxError

# Every repeated frame counts: decord's default hides those that it could not decode.
_NO_STALE_FRAMES: Any = 1e-9
_PATIENCE, _PER_PACKET = 120.0, 0.1  # seconds
_SAME_TIME = 1e-6  # seconds
_DECORD_ERRORS = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, AssertionError)


Choose = Callable[[int, float], Int64[np.ndarray, " frames"]]
"""Of a number of frames and of how many there are a second: which to take, from 0, in order."""


@dataclass(frozen=True, eq=False)
class VideoClip:
    """Frames chosen from a video.

    frames: uint8 [frames, height, width, 3], RGB, turned as the file says.
    indices: int64 [frames], which of the video's frames each is, from 0, in display order.
    timestamps: float64 [frames], when each is shown, in seconds after the video's first frame.
    fps: average frames per second of the video.
    duration: of the whole video in seconds, its last frame included.
    """

    frames: UInt8[np.ndarray, "frames height width 3"]
    indices: Int64[np.ndarray, " frames"]
    timestamps: Float64[np.ndarray, " frames"]
    fps: float
    duration: float

    @property
    def repeated(self) -> bool:
        """Whether some frame was taken more than once, as the clip has too few of them."""
        return len(np.unique(self.indices)) < len(self.indices)


def frame_indices(first: int, last: int, count: int) -> Int64[np.ndarray, " count"]:
    """The middle frames of `count` equal parts of `[first, last]`, rounded as PLLaVA's loader does.

    With g = (last - first) / count: index_i = int(first + g/2 + round(g i)), half to even. Where
    there are about as many frames as parts, or fewer, some index comes more than once.

    Raises:
        FlowjaxError: `count` below 1, or `first` and `last` that are not 0 <= first <= last.
    """
    if count < 1:
        raise FlowjaxError(f"{count} frames asked for; at least 1 is needed")
    if not 0 <= first <= last:
        raise FlowjaxError(f"frames {first} to {last} are no range of frames")
    return middles(first, last, count)


def read_frames(
    path: str | os.PathLike[str],
    num_frames: int | Choose,
    *,
    start: int | float | None = None,
    end: int | float | None = None,
    by: Clock = "display",
) -> VideoClip:
    """Decode `num_frames` frames, evenly spaced as `frame_indices` gives them, or chosen ones.

    A clip with fewer frames than asked for repeats some, in order: `VideoClip.repeated` tells.

    Args:
        path: an MP4, MOV, Matroska, WebM or AVI file; of several video streams the default one.
        num_frames: how many frames; or what chooses among those of the part asked for.
        start, end: seconds; the part of the video to take frames from, clipped to the video.
        by: how seconds become frames; see `Clock`.

    Raises:
        FlowjaxError: see `flowjax.data.container.inspect`; or `num_frames` below 1, `end` not after
            `start`, `start` after the last frame, or a frame that cannot be decoded.
    """
    path = Path(path)
    if not callable(num_frames) and num_frames < 1:
        raise FlowjaxError(f"{num_frames} frames asked for; at least 1 is needed")
    check_part(start, end)
    container = inspect(path)
    first, last = _part(path, container, start, end, by)
    indices = choose_frames(num_frames, first, last, container.fps)
    wanted, back = np.unique(indices, return_inverse=True)
    frames = _decode_in_time(path, container, wanted)
    duration = float(container.timestamps[-1]) + 1 / container.fps
    shown = container.timestamps[indices]
    return VideoClip(frames[back], indices, shown, container.fps, duration)


def choose_frames(
    num_frames: int | Choose, first: int, last: int, fps: float
) -> Int64[np.ndarray, " frames"]:
    """Which of the frames `first` to `last` are taken."""
    if callable(num_frames):
        return first + num_frames(last - first + 1, fps)
    return frame_indices(first, last, num_frames)


def check_part(start: int | float | None, end: int | float | None) -> None:
    """Refuse seconds that are no part of a video.

    Raises:
        FlowjaxError: not finite, or `end` not after `start`.
    """
    for name, value in (("start", start), ("end", end)):
        if value is not None and not math.isfinite(value):
            raise FlowjaxError(f"{name} is {value}; a number of seconds is needed")
    begin = 0.0 if start is None else max(start, 0.0)
    if end is not None and end <= begin:
        raise FlowjaxError(f"end ({end} s) must be after start ({begin} s)")


def _part(
    path: Path, container: Container, start: int | float | None, end: int | float | None, by: Clock
) -> tuple[int, int]:
    """The first and last frame to choose from."""
    final = len(container.shown) - 1

    def frame(seconds: int | float) -> int:
        if by == "rate":
            return round(seconds * container.fps)
        return _nearest(container.timestamps, 1 / container.fps, seconds)

    first = 0 if start is None else max(0, frame(start))
    last = final if end is None else min(final, frame(end))
    if first > final:
        shown = container.timestamps[-1]
        raise FlowjaxError(f"{path}: start ({start} s) is after the last frame, at {shown:.3f} s")
    return first, max(first, last)


def _nearest(times: Float64[np.ndarray, " n"], period: float, seconds: int | float) -> int:
    """The frame shown nearest to `seconds`, of two as near the even one; n where all are over.

    `period` is how long the only frame is shown; else the last is shown as long as the one before.
    """
    lasts = times[-1] - times[-2] if len(times) > 1 else period
    ends = np.append(times, times[-1] + lasts)
    after = int(np.clip(np.searchsorted(ends, seconds), 1, len(ends) - 1))
    before = after - 1
    closer = (seconds - ends[before]) - (ends[after] - seconds)
    if abs(closer) < _SAME_TIME:
        return before if before % 2 == 0 else after
    return before if closer < 0 else after


def _decode_in_time(
    path: Path, container: Container, indices: Int64[np.ndarray, " n"]
) -> UInt8[np.ndarray, "n height width 3"]:
    """Decode in a thread of its own, for decord's seek can loop forever on a damaged stream.

    The limit counts the packets that must be decoded, and is many times what 4K video takes, so
    that only a loop reaches it. The looping thread cannot be ended, but ends with the process.
    """
    limit = _PATIENCE + _PER_PACKET * int(container.cost[indices].sum())
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(_decode(path, container, indices))
        except BaseException as error:  # handed to the caller
            outcome.append(error)

    thread = threading.Thread(target=work, name=f"decode {path.name}", daemon=True)
    thread.start()
    thread.join(limit)
    if not outcome:
        raise FlowjaxError(f"{path} cannot be decoded: no end within {limit:.0f} s; re-encode it")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _decode(
    path: Path, container: Container, indices: Int64[np.ndarray, " n"]
) -> UInt8[np.ndarray, "n height width 3"]:
    """Decode as fast as decord can, and if that fails once more with one thread.

    Its threads lose frames of sound streams: of VP9 made for live use, with three threads or more.
    A worker takes one at once: the other cores have workers of their own.
    """
    decord.logging.set_level(decord.logging.QUIET)
    alone = multiprocessing.parent_process() is None
    try:
        frames = _decode_with(path, container, indices, threads=0 if alone else 1)
    except FlowjaxError:
        if not alone:
            raise
        frames = _decode_with(path, container, indices, threads=1)
    return np.ascontiguousarray(np.rot90(frames, container.turns, axes=(1, 2)))


def _decode_with(
    path: Path, container: Container, indices: Int64[np.ndarray, " n"], *, threads: int
) -> UInt8[np.ndarray, "n height width 3"]:
    """Decode with so many threads; 0 is decord's choice."""
    source = container.source
    try:
        reader = decord.VideoReader(
            io.BytesIO(source) if isinstance(source, bytes) else source,
            ctx=decord.cpu(0),
            num_threads=threads,
            fault_tol=_NO_STALE_FRAMES,
        )
    except _DECORD_ERRORS as error:
        raise FlowjaxError(
            f"{path} cannot be opened by decord (codec {container.codec}); "
            "re-encode it as H.264 in MP4"
        ) from error
    if len(reader) != container.packets:
        raise FlowjaxError(
            f"{path}: decord counts {len(reader)} frames where the file holds {container.packets}; "
            "re-encode it"
        )
    frames = []
    for index in indices:
        entry, position = int(container.entry[index]), int(container.shown[index])
        try:
            # One frame at a time, so that an error can name it; decord seeks as for a batch, and
            # reads on within a group of pictures. Reading on into the next one as well took 10 to
            # 44% longer for 8 frames, and 19% less only for 32 with a key frame every 12.
            reader.seek_accurate(entry)
            for _ in range(position - entry):
                reader.next()
            frames.append(_unpadded(reader.next().asnumpy()))
        except (*_DECORD_ERRORS, StopIteration) as error:
            raise FlowjaxError(
                f"{path} is damaged: frame {index} of 0 to {len(container.shown) - 1} cannot be "
                "decoded; copy or re-encode it"
            ) from error
    return np.stack(frames)


def _unpadded(
    frame: UInt8[np.ndarray, "height width channels"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Drop the padding of rows, which decord gives as more channels where it fits whole pixels."""
    height, width = frame.shape[:2]
    return frame.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)
