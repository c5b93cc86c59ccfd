"""What a video file holds, found by reading its packets without decoding them.

Decord trusts what a container says. Where that is wrong or unusual it returns other frames than
those asked for, repeats stale ones, or never returns at all:

- a truncated file loses frames at its end that its index promises;
- packets before the first key frame decode to nothing, and shift every later frame;
- frames that an edit list hides (a clip cut without re-encoding has them) are counted but not
  returned, which shifts later frames and, with more than 128 of them, never ends;
- of several video streams it takes the one with the most pixels, not the one that players show;
- a file that states no duration, as live streams and pipes write them, cannot be opened;
- transport and program streams and the like cannot be sought exactly, nor AVI with B-frames.

So the packets are read first, of the stream that players show. Truncated files and those that
cannot be sought are refused. A file that decord would misread is rewritten in memory: that stream
alone, with a duration and without an edit list, whose hidden frames are skipped.
What is not found here is damage inside a frame, which FFmpeg's decoders paint over.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from jaxtyping import Bool, Float64, Int64

from flowjax.errors import FlowjaxError
from flowjax.files import POINTER, check_fetched

FORMATS = "MP4, MOV, Matroska, WebM or AVI"
# FFmpeg's names of the same. The list keeps FFmpeg from following playlists and from calling a
# picture a video.
_OPTIONS = {"format_whitelist": "mov,matroska,avi"}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # elements of Matroska
_REENCODE = "re-encode it, for example with `ffmpeg -i IN -c:v libx264 OUT.mp4`"


@dataclass(frozen=True, eq=False)
class Container:
    """The video stream of a file, ready for decord.

    source: what decord is to open: the path, or the file in memory, rewritten where it must be.
    packets: frames that decord will count.
    shown: int64 [n], decord's index of each frame that a player shows.
    entry: int64 [n], the index from which decord reads on to reach each of them exactly.
    cost: int64 [n], packets that are decoded on the way to each.
    timestamps: float64 [n], when each is shown, in seconds after the first.
    fps: average frames per second.
    turns: quarter turns, counterclockwise, that decord leaves undone.
    codec: FFmpeg's name of the codec.
    """

    source: str | bytes
    packets: int
    shown: Int64[np.ndarray, " n"]
    entry: Int64[np.ndarray, " n"]
    cost: Int64[np.ndarray, " n"]
    timestamps: Float64[np.ndarray, " n"]
    fps: float
    turns: int
    codec: str


def inspect(path: Path) -> Container:
    """Read the packets of the video stream in `path` that players show.

    Raises:
        FlowjaxError: not a regular file that can be read, empty, not a video, truncated, without
            frames, or of a kind that decord cannot read exactly.
    """
    _check_file(path)
    try:
        with _open(path) as container:
            return _read(path, container)
    except av.error.FFmpegError as error:
        if _starts_like_a_video(path):
            raise FlowjaxError(
                f"{path} is truncated or damaged: its video stream cannot be read; copy it again"
            ) from error
        raise FlowjaxError(f"{path} is not a video ({FORMATS})") from error


def _open(path: Path) -> InputContainer:
    return av.open(str(path.absolute()), options=_OPTIONS, metadata_errors="ignore")


def _check_file(path: Path) -> None:
    try:
        if not path.exists():
            raise FlowjaxError(f"{path} does not exist; a video file is needed")
        if path.is_dir():
            raise FlowjaxError(f"{path} is a directory; a video file is needed")
        if not path.is_file():
            raise FlowjaxError(f"{path} is not a regular file; a video file is needed")
        if path.stat().st_size == 0:
            raise FlowjaxError(f"{path} is empty; a video file is needed")
        with path.open("rb") as file:
            check_fetched(path, file.read(len(POINTER)))
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise FlowjaxError(f"{path} cannot be read: {reason}") from error


def _starts_like_a_video(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return (
        head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"moof"}
        or head.startswith(_EBML)
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
    )


class _Packet(NamedTuple):
    """What is kept of a packet, in stored order; its data is not."""

    pts: int | None
    key: bool
    hidden: bool
    corrupt: bool


def _read(path: Path, container: InputContainer) -> Container:
    stream = _shown_stream(path, container)
    if stream.codec_context is None:
        raise FlowjaxError(f"{path} has a video codec that is not known; {_REENCODE}")
    packets = [
        _Packet(packet.pts, packet.is_keyframe, packet.is_discard, packet.is_corrupt)
        for packet in container.demux(stream)
        if packet.size
    ]
    if not packets:
        raise FlowjaxError(f"{path} holds no video frame")
    codec = stream.codec_context.codec.canonical_name
    _check_complete(path, stream, packets)
    if not packets[0].key:
        raise FlowjaxError(
            f"{path}: frame 0 cannot be decoded, for its key frame is missing; {_REENCODE}"
        )
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        raise FlowjaxError(
            f"{path}: AVI states no display times, and {codec} with B-frames needs them; "
            f"{_REENCODE}"
        )
    times = [packet.pts for packet in packets if packet.pts is not None]
    if len(times) < len(packets) or stream.time_base is None:
        raise FlowjaxError(f"{path}: frames without a display time; {_REENCODE}")

    # Frames shown before the first key frame need what came before the file.
    pts = np.array(times, np.int64)
    kept = pts >= pts[0]
    pts = pts[kept]
    keys = np.array([packet.key for packet in packets])[kept]
    visible = ~np.array([packet.hidden for packet in packets])[kept]
    order = np.argsort(pts, kind="stable")  # decord counts frames in display order
    shown = np.flatnonzero(visible[order])
    if not len(shown):
        raise FlowjaxError(f"{path} shows no video frame: its edit list hides them all")
    seconds = pts[order][shown] * float(stream.time_base)
    entry, cost = _entries(order, keys)
    alone = len(container.streams.video) == 1
    as_it_is = kept.all() and visible.all() and alone and container.duration is not None
    turned_by_decord = as_it_is and "mov" in container.format.name
    return Container(
        source=_as_it_is(path) if as_it_is else _rewrite(path, stream.index, times[0]),
        packets=len(pts),
        shown=shown,
        entry=entry[shown],
        cost=cost[shown],
        timestamps=seconds - seconds[0],
        fps=_rate(path, stream, seconds),
        turns=0 if turned_by_decord else _turns(container, stream),
        codec=codec,
    )


def _shown_stream(path: Path, container: InputContainer) -> av.VideoStream:
    """The stream that players show: the default one. The picture on a sound file is none."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not streams:
        raise FlowjaxError(f"{path} holds no video stream")
    best = container.streams.best("video")
    return next((stream for stream in streams if stream is best), streams[0])


def _turns(container: InputContainer, stream: av.VideoStream) -> int:
    """Quarter turns that the file asks for: decord reads them from MP4 and MOV files only."""
    container.seek(0, stream=stream)
    frame = next(container.decode(stream), None)
    return 0 if frame is None else round(frame.rotation / 90) % 4


def _entries(
    order: Int64[np.ndarray, " n"], is_key: Bool[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Where to enter the stream for each frame, in display order, and the packets it costs.

    Decord looks for the key frame before a frame by comparing the frame's display index with key
    frames' stored indices. The two differ where frames stored after a key frame are shown before it
    (open groups of pictures): there, and for the frame after the key frame, it returns a later
    frame. These are reached by entering before that key frame and reading on.
    """
    display = np.empty_like(order)
    display[order] = np.arange(len(order))
    entry = np.arange(len(order))
    keys = np.flatnonzero(is_key)
    for key in keys[display[keys] > keys]:
        entry[key : display[key] + 2] = entry[key - 1]
    stored = keys[np.searchsorted(keys, entry, side="right") - 1]
    return entry, np.maximum(order - stored, 0) + 1


def _check_complete(path: Path, stream: av.VideoStream, packets: list[_Packet]) -> None:
    """Refuse a file that ends before its last frame, naming the first frame that is lost."""
    whole = next((i for i, packet in enumerate(packets) if packet.corrupt), len(packets))
    size, stated = path.stat().st_size, _stated_size(path)
    if whole < len(packets) or (size < stated and whole < stream.frames):
        raise FlowjaxError(
            f"{path} is truncated: frame {whole} of 0 to {max(stream.frames, whole + 1) - 1} "
            "(in stored order) cannot be read; copy it again"
        )
    if size < stated:
        raise FlowjaxError(
            f"{path} is truncated: it has {size} of {stated} bytes, and no frame after frame "
            f"{whole - 1} (in stored order); copy it again"
        )


def _stated_size(path: Path) -> int:
    """The bytes that a file says it has; 0 where it does not say."""
    with path.open("rb") as file:
        head = file.read(4096)
        if head.startswith(_EBML):
            return _matroska_size(head)
        if head.startswith(b"RIFF"):
            return 8 + int.from_bytes(head[4:8], "little")
        return _mp4_size(file)


def _mp4_size(file: BinaryIO) -> int:
    """Where the last box of frames or index ends (ISO/IEC 14496-12, section 4.2).

    A box is its size (4 bytes), its type (4), for size 1 its size again (8), and its content; size
    0 means up to the end of the file.
    """
    position = end = 0
    while True:
        file.seek(position)
        head = file.read(16)
        size = int.from_bytes(head[:4])
        if size == 1:
            size = int.from_bytes(head[8:])
        if len(head) < 8 or size < 8:
            return end
        position += size
        if head[4:8] in {b"moov", b"mdat", b"moof"}:
            end = position


def _matroska_size(head: bytes) -> int:
    """Where the segment of a Matroska or WebM file ends; 0 for a live stream, which states none.

    EBML (RFC 8794): an element is an id, a size of variable length, and that many bytes. The number
    of leading zeros of a size's first byte says how many bytes follow it.
    """
    end = 0
    for identifier in (_EBML, _SEGMENT):
        start = end + len(identifier)
        if not head.startswith(identifier, end) or len(head) < start + 8 or head[start] == 0:
            return 0
        length = 9 - head[start].bit_length()
        unknown = (1 << 7 * length) - 1
        size = int.from_bytes(head[start : start + length]) & unknown
        if size == unknown:
            return 0
        end = start + length + size
    return end


def _as_it_is(path: Path) -> str | bytes:
    """The path, or the file itself where its name is no text that decord could be given."""
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return name


def _rewrite(path: Path, index: int, first: int) -> bytes:
    """Stream `index` from display time `first` on, alone, in Matroska, which has no edit lists."""
    target = io.BytesIO()
    with (
        _open(path) as source,
        av.open(target, "w", format="matroska") as copy,
    ):
        stream = source.streams[index]
        assert isinstance(stream, av.VideoStream)  # as `_read` has seen
        output = copy.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size and packet.pts is not None and packet.pts >= first:
                packet.stream = output
                copy.mux(packet)
    return target.getvalue()


def _rate(path: Path, stream: av.VideoStream, seconds: Float64[np.ndarray, " n"]) -> float:
    if stream.average_rate:
        return float(stream.average_rate)
    if seconds[-1] > seconds[0]:
        return (len(seconds) - 1) / float(seconds[-1] - seconds[0])
    raise FlowjaxError(f"{path} states no frame rate; {_REENCODE}")
