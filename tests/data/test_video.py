import os
import shutil
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowjax.data import video
from flowjax.data.encode import write_mp4
from flowjax.data.video import frame_indices, read_frames
from flowjax.errors import FlowjaxError


def scenes(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that all differ, and by much, so that none can pass for another."""
    frames = np.full((count, height, width, 3), 120, np.uint8)
    for index, frame in enumerate(frames):
        for bit in range(10):
            if index >> bit & 1:
                frame[(bit // 5) * 20 + 2 : (bit // 5) * 20 + 18, (bit % 5) * 12 + 2 :][:, :10] = (
                    240
                )
        frame[44:, : 1 + index % width] = (200, 30, 30)
    return frames


def encode(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    container: str | None = None,
    **options: str,
) -> Path:
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25, options={"threads": "1", **options})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    return path


def rewrite(
    source: Path,
    target: Path,
    keep: Callable[[int, av.Packet], bool] = lambda index, packet: True,
    *,
    start: float = 0,
    container: str | None = None,
) -> Path:
    """Copy packets; `start` hides what comes before, as cutting without re-encoding does."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=container) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for index, packet in enumerate(packets):
            if keep(index, packet):
                shift = int(start / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                new.mux(packet)
    return target


def played(path: Path) -> np.ndarray:
    """Every frame as FFmpeg's own decoder gives it."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_mp4(path, scenes(50), 25)
    return path


@given(first=st.integers(0, 50), length=st.integers(0, 500), count=st.integers(1, 40))
def test_indices_follow_the_published_formula(first, length, count):
    last = first + length
    step = float(last - first) / count
    wanted = [int(first + (step / 2) + np.round(step * i)) for i in range(count)]
    indices = frame_indices(first, last, count)
    assert indices.tolist() == wanted
    assert (np.diff(indices) >= 0).all()
    assert first <= indices[0]
    assert indices[-1] <= last


def test_indices_of_some_clips():
    assert frame_indices(0, 99, 4).tolist() == [12, 37, 62, 86]
    assert frame_indices(0, 0, 3).tolist() == [0, 0, 0]
    assert frame_indices(7, 7, 1).tolist() == [7]
    for bad in ((0, 5, 0), (3, 2, 1), (-1, 4, 2)):
        with pytest.raises(FlowjaxError):
            frame_indices(*bad)


def test_frames_are_decords(clip):
    read = read_frames(clip, 8)
    reader = decord.VideoReader(str(clip))
    assert read.indices.tolist() == frame_indices(0, 49, 8).tolist()
    np.testing.assert_array_equal(read.frames, reader.get_batch(read.indices).asnumpy())
    assert read.frames.dtype == np.uint8
    assert read.frames.shape == (8, 48, 64, 3)
    assert read.fps == reader.get_avg_fps() == 25
    np.testing.assert_allclose(read.timestamps, read.indices / 25)
    assert not read.repeated
    # RGB, not BGR: the bar at the bottom is red.
    assert read.frames[-1, 46, 0, 0] > read.frames[-1, 46, 0, 2] + 50


def test_path_may_be_text_or_relative(clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    np.testing.assert_array_equal(read_frames("clip.mp4", 2).frames, read_frames(clip, 2).frames)


@pytest.mark.parametrize("name", ["a:b.mp4", "file:x.mp4", "-i.mp4", "clip %d é 100%.mp4"])
def test_file_names_are_only_names(clip, tmp_path, name):
    shutil.copy(clip, tmp_path / name)
    assert len(read_frames(tmp_path / name, 3).frames) == 3


def test_fewer_frames_than_asked_for_repeat_in_order(tmp_path):
    path = tmp_path / "short.mp4"
    write_mp4(path, scenes(3), 10)
    read = read_frames(path, 8)
    assert read.repeated
    assert read.indices.tolist() == frame_indices(0, 2, 8).tolist()
    np.testing.assert_array_equal(read.frames, played(path)[read.indices])
    assert not read_frames(path, 1).repeated


def test_one_frame(tmp_path):
    path = tmp_path / "one.mp4"
    write_mp4(path, scenes(1), Fraction(30000, 1001))
    read = read_frames(path, 2)
    assert read.indices.tolist() == [0, 0]
    assert read.fps == pytest.approx(29.97, abs=0.01)


def test_part_of_a_video(clip):
    read = read_frames(clip, 4, start=0.5, end=1.2)
    assert read.indices.tolist() == frame_indices(12, 30, 4).tolist()  # 12.5 rounds to even
    np.testing.assert_array_equal(read.frames, played(clip)[read.indices])
    assert read_frames(clip, 4, start=-3, end=99).indices.tolist() == [6, 18, 30, 43]
    assert read_frames(clip, 4).indices.tolist() == [6, 18, 30, 43]
    assert read_frames(clip, 2, start=1.9).indices.min() >= 48


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "0 frames asked for; at least 1"),
        ({"num_frames": -2}, "-2 frames"),
        ({"num_frames": 4, "start": 1, "end": 1}, "end (1 s) must be after start (1 s)"),
        ({"num_frames": 4, "start": 1, "end": 0.5}, "end (0.5 s) must be after"),
        ({"num_frames": 4, "end": 0}, "end (0 s) must be after start (0.0 s)"),
        ({"num_frames": 4, "start": 2}, "start (2 s) is after the last frame, at 1.960 s"),
        ({"num_frames": 4, "start": float("nan")}, "start is nan"),
        ({"num_frames": 4, "end": float("inf")}, "end is inf"),
    ],
)
def test_bad_arguments(clip, arguments, message):
    with pytest.raises(FlowjaxError) as error:
        read_frames(clip, **arguments)
    assert message in str(error.value)


def bad_file(name: str, clip: Path, folder: Path) -> Path:
    path = folder / f"{name}.mp4"
    match name:
        case "directory":
            path.mkdir()
        case "empty":
            path.touch()
        case "text":
            path.write_text("This is not a video.\n" * 50)
        case "playlist":
            path.write_text(f"#EXTM3U\n#EXTINF:2,\nfile://{clip}\n#EXT-X-ENDLIST\n")
        case "concatenation":
            path.write_text(f"ffconcat version 1.0\nfile '{clip.name}'\n")
            shutil.copy(clip, folder / clip.name)
        case "noise":
            path.write_bytes(np.random.default_rng(0).bytes(5000))
        case "half":
            data = clip.read_bytes()
            path.write_bytes(data[: len(data) // 2])
        case "no index":
            encode(path, scenes(20))
            data = path.read_bytes()
            path.write_bytes(data[: data.index(b"moov") - 4])
        case "sound only":
            with av.open(str(path), "w") as file:
                stream = file.add_stream("aac", rate=8000, layout="mono")
                silence = np.zeros((1, 1024), np.float32)
                sound = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
                sound.sample_rate = 8000
                file.mux([*stream.encode(sound), *stream.encode()])
        case "no frames":
            with av.open(str(path), "w", options={"movflags": "empty_moov"}) as file:
                stream = file.add_stream("libx264", rate=25)
                stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
                stream.codec_context.open()
                file.start_encoding()
        case "no key frame":
            rewrite(clip, path, lambda index, packet: index > 0)
        case "stream":
            rewrite(clip, path, container="mpegts")
        case "device":
            os.mkfifo(path)
    return path


BAD_FILES = {
    "missing": "does not exist",
    "directory": "is a directory",
    "empty": "is empty",
    "text": "is not a video (MP4, MOV, Matroska, WebM or AVI)",
    "playlist": "is not a video",
    "concatenation": "is not a video",
    "noise": "is not a video",
    "half": "is truncated: frame",
    "no index": "is truncated or damaged",
    "sound only": "holds no video stream",
    "no frames": "holds no video frame",
    "no key frame": "frame 0 cannot be decoded, for its key frame is missing",
    "stream": "is not a video",
    "device": "is not a regular file",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_one_clear_line(name, clip, tmp_path, capfd):
    path = bad_file(name, clip, tmp_path)
    with pytest.raises(FlowjaxError) as error:
        read_frames(path, 4)
    message = str(error.value)
    assert BAD_FILES[name] in message
    assert str(path) in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("index_first", [True, False])
def test_truncated_anywhere_is_an_error(name, index_first, tmp_path, capfd):
    path = tmp_path / name
    if index_first and path.suffix == ".mp4":
        write_mp4(path, scenes(30), 25)
    else:
        encode(path, scenes(30), g="10")
    data = path.read_bytes()
    for end in range(1, len(data), 41):
        path.write_bytes(data[:end])
        with pytest.raises(FlowjaxError, match=r"truncated|not a video|holds no video"):
            read_frames(path, 8)
    assert capfd.readouterr() == ("", "")


def test_truncated_file_names_the_first_lost_frame(tmp_path):
    path = tmp_path / "cut.mp4"
    write_mp4(path, scenes(30), 25)
    data = path.read_bytes()
    with av.open(str(path)) as file:
        ends = [packet.pos + packet.size for packet in file.demux(video=0) if packet.size]
    for end in (ends[11], ends[11] + 1, ends[12] - 1):
        path.write_bytes(data[:end])
        with pytest.raises(FlowjaxError, match=r"frame 12 of 0 to 29 .*cannot be read"):
            read_frames(path, 4)
        with pytest.raises(FlowjaxError):  # even where the part asked for is there
            read_frames(path, 1, end=0.1)


def test_damage_that_stops_the_decoder_names_the_frame(clip, tmp_path):
    path = tmp_path / "damaged.mp4"
    with av.open(str(clip)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    data = bytearray(clip.read_bytes())
    start, end = packets[10].pos, packets[-1].pos + packets[-1].size
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    with pytest.raises(FlowjaxError, match=r"frame \d+ of 0 to 49 cannot be decoded"):
        read_frames(path, 4)


def assert_every_frame_exact(path: Path, wanted: np.ndarray, monkeypatch) -> None:
    """Frames one at a time, in scattered groups, and all together are those that a player shows."""
    rng = np.random.default_rng(0)
    groups = [np.array([index]) for index in range(len(wanted))]
    groups += [np.sort(rng.choice(len(wanted), 4, replace=False)) for _ in range(10)]
    groups += [np.arange(len(wanted))]
    for group in groups:
        monkeypatch.setattr(video, "frame_indices", lambda first, last, count, group=group: group)
        read = read_frames(path, len(group))
        np.testing.assert_array_equal(read.frames, wanted[group], err_msg=str(group))


@pytest.mark.parametrize("bframes", ["0", "3"])
@pytest.mark.parametrize("opened", ["0", "1"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_frame_is_exact(bframes, opened, suffix, tmp_path, monkeypatch):
    """With open groups of pictures a key frame is stored before frames that are shown earlier."""
    path = tmp_path / f"a{suffix}"
    options = f"open-gop={opened}:keyint=12:min-keyint=12:scenecut=0:b-adapt=0:bframes={bframes}"
    encode(path, scenes(50), **{"x264-params": options})
    wanted = played(path)
    assert len(wanted) == 50
    assert_every_frame_exact(path, wanted, monkeypatch)


@pytest.mark.parametrize(("codec", "name"), [("mpeg4", "a.avi"), ("libvpx-vp9", "a.webm")])
def test_other_codecs(codec, name, tmp_path, monkeypatch):
    path = encode(tmp_path / name, scenes(30), codec=codec)
    assert_every_frame_exact(path, played(path), monkeypatch)


def test_avi_with_b_frames_is_refused(tmp_path):
    path = encode(tmp_path / "a.avi", scenes(30), codec="mpeg4", bf="2")
    with pytest.raises(FlowjaxError, match="AVI states no display times"):
        read_frames(path, 4)


@pytest.mark.parametrize(("frames", "start"), [(50, 0.6), (300, 10.0)])
@pytest.mark.parametrize("opened", ["0", "1"])
def test_hidden_frames_do_not_count(frames, start, opened, tmp_path, monkeypatch, capfd):
    """A clip cut without re-encoding keeps the packets from a key frame on, but hides some."""
    keyint = 12 if frames == 50 else 300  # with over 128 hidden frames decord alone never returns
    options = f"open-gop={opened}:keyint={keyint}:min-keyint={keyint}:scenecut=0:bframes=3"
    whole = encode(tmp_path / "whole.mp4", scenes(frames), **{"x264-params": options})
    with av.open(str(whole)) as file:
        keys = [i for i, packet in enumerate(file.demux(video=0)) if packet.is_keyframe]
    first = keys[1] if frames == 50 else 0
    path = rewrite(whole, tmp_path / "cut.mp4", lambda index, _: index >= first, start=start)
    wanted = played(whole)[int(start * 25) :]
    with av.open(str(path)) as file:
        hidden = sum(packet.is_discard for packet in file.demux(video=0))
    assert hidden > (128 if frames == 300 else 0)

    read = read_frames(path, 6)
    assert read.indices.tolist() == frame_indices(0, len(wanted) - 1, 6).tolist()
    np.testing.assert_array_equal(read.frames, wanted[read.indices])
    np.testing.assert_allclose(read.timestamps, read.indices / 25)
    assert read.fps == 25
    if frames == 50:
        assert_every_frame_exact(path, wanted, monkeypatch)
    assert capfd.readouterr() == ("", "")


def test_turned_video_is_turned(clip, tmp_path):
    path = tmp_path / "turned.mp4"
    data = bytearray(clip.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12: the track header's matrix
    turn = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4")
    data[matrix : matrix + 36] = turn.tobytes()
    path.write_bytes(data)
    np.testing.assert_array_equal(
        read_frames(path, 3).frames, np.rot90(read_frames(clip, 3).frames, -1, axes=(1, 2))
    )


@pytest.mark.parametrize("width", [2, 16, 48, 50])
def test_narrow_video(width, tmp_path):
    """Decord pads the rows of a picture, and says so by more channels or not at all."""
    path = tmp_path / "narrow.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, width, 3), np.uint8)
    write_mp4(path, frames, 25)
    np.testing.assert_array_equal(read_frames(path, 1).frames, played(path)[1:2])


def test_a_decoder_that_does_not_end_is_given_up(clip, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(video, "_decode", lambda *arguments: released.wait())
    monkeypatch.setattr(video, "_PATIENCE", 0.05)
    monkeypatch.setattr(video, "_PER_PACKET", 0.0)
    with pytest.raises(FlowjaxError, match="no end within"):
        read_frames(clip, 2)
    released.set()
