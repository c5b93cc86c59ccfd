"""Clips after public bug reports: which frames are read, told by what they show.

Frame k of each clip in `cases` shows k as ten blocks in its middle, left to right: block b is white
where bit b of k is set (inverted in the first stream of `dash1`).
"""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
import pytest
from av.stream import Disposition

from flowjax.data.container import inspect
from flowjax.data.encode import write_mp4
from flowjax.data.video import _part, frame_indices, read_frames
from flowjax.errors import FlowjaxError

CASES = Path(__file__).parent / "cases"
BLOCKS = 10


def numbers(frames: np.ndarray, *, inverted: bool = False) -> list[int]:
    """The number that each frame shows."""
    height, width = frames.shape[1:3]
    middles = ((np.arange(BLOCKS) + 0.5) * width / BLOCKS).astype(int)
    white = frames[:, height // 2, middles].mean(axis=-1) > 128
    return ((white ^ inverted) @ (1 << np.arange(BLOCKS))).tolist()


def all_frames(path: Path, count: int, **options) -> list[int]:
    """The numbers of a clip of `count` frames, every frame asked for once."""
    read = read_frames(path, 2 * count, **options)
    assert set(read.indices) == set(range(count))
    return [shown for _, shown in sorted(set(zip(read.indices, numbers(read.frames), strict=True)))]


@pytest.mark.parametrize("name", ["dash1.mp4", "dash1.mkv"])
def test_two_streams_pixels_times_and_rate_are_of_the_default_one(name):
    read = read_frames(CASES / name, 8)
    assert read.frames.shape == (8, 240, 320, 3)
    assert read.fps == 10
    assert read.indices.tolist() == frame_indices(0, 59, 8).tolist()
    assert numbers(read.frames, inverted=True) == read.indices.tolist()
    np.testing.assert_allclose(read.timestamps, read.indices / 10)


def test_two_streams_the_default_one_need_not_be_the_first(tmp_path):
    path = tmp_path / "second.mkv"
    with av.open(str(CASES / "dash1.mkv")) as old, av.open(str(path), "w") as new:
        streams = {0: new.add_stream_from_template(old.streams[0])}
        streams[1] = new.add_stream_from_template(old.streams[1])
        streams[0].disposition = Disposition(0)
        streams[1].disposition = Disposition.default
        for packet in old.demux(video=(0, 1)):
            if packet.size:
                packet.stream = streams[packet.stream_index]
                new.mux(packet)
    read = read_frames(path, 8)
    assert read.frames.shape == (8, 480, 640, 3)
    assert read.fps == 30
    assert numbers(read.frames) == read.indices.tolist()


def test_decoder_threads_ssv2():
    read = read_frames(CASES / "ssv2_0.webm", 8)
    assert numbers(read.frames) == read.indices.tolist() == [2, 6, 11, 16, 20, 24, 29, 34]
    assert all_frames(CASES / "ssv2_1.webm", 45) == list(range(45))


def test_decoder_threads_damage_is_said_after_one_thread_failed_too(monkeypatch):
    tried = []
    opened = decord.VideoReader

    def reader(*arguments, **options):
        tried.append(options["num_threads"])
        made = opened(*arguments, **options)

        def fail():
            raise decord.DECORDError("lost")

        made.next = fail
        return made

    monkeypatch.setattr(decord, "VideoReader", reader)
    with pytest.raises(FlowjaxError, match="is damaged: frame 6 of 0 to 36 cannot be decoded"):
        read_frames(CASES / "ssv2_0.webm", 3)
    assert tried == [0, 1]


@pytest.mark.parametrize("name", ["live.webm", "pipe.mkv"])
def test_no_duration(name):
    assert all_frames(CASES / name, 60) == list(range(60))
    read = read_frames(CASES / name, 8)
    np.testing.assert_allclose(read.timestamps, read.indices / 30, atol=1e-3)
    assert read.fps == 30


def test_no_duration_of_fragments(tmp_path):
    """As a recorder writes MP4 that it cannot go back in."""
    path = tmp_path / "fragments.mp4"
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with (
        av.open(str(CASES / "vfr.mp4")) as old,
        av.open(str(path), "w", options=options) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    assert all_frames(path, 60) == list(range(60))


def test_sound_with_a_picture_is_no_video():
    with pytest.raises(FlowjaxError, match=r"cover\.m4a holds no video stream"):
        read_frames(CASES / "cover.m4a", 8)


def test_seconds_are_display_times():
    """6 s at 5 frames a second, then 1 s at 30: 8.18 on average."""
    read = read_frames(CASES / "vfr.mp4", 60, start=6, end=7)
    assert read.indices.min() == 30
    assert read.indices.max() == 59
    assert numbers(read.frames) == read.indices.tolist()
    read = read_frames(CASES / "vfr.mp4", 8, start=6, end=7)
    assert numbers(read.frames) == frame_indices(30, 59, 8).tolist()
    assert read.timestamps[0] >= 6
    # 5.9 s is nearer to frame 30 (6.0 s) than to frame 29 (5.8 s); of two as near the even one.
    assert read_frames(CASES / "vfr.mp4", 1, start=5.91, end=5.95).indices.tolist() == [30]
    assert read_frames(CASES / "vfr.mp4", 1, start=5.9, end=5.90001).indices.tolist() == [30]
    with pytest.raises(FlowjaxError, match=r"is after the last frame, at 6\.967 s"):
        read_frames(CASES / "vfr.mp4", 1, start=6.99)


def test_seconds_by_the_references_rule():
    read = read_frames(CASES / "vfr.mp4", 60, start=6, end=7, by="rate")
    assert (read.indices.min(), read.indices.max()) == (round(6 * 90 / 11), round(7 * 90 / 11))
    assert numbers(read.frames) == read.indices.tolist()


@pytest.mark.parametrize("rate", [25, Fraction(30000, 1001)])
def test_seconds_of_a_constant_rate_are_the_references(tmp_path, rate):
    path = tmp_path / "constant.mp4"
    write_mp4(path, np.zeros((40, 16, 16, 3), np.uint8), rate)
    container = inspect(path)
    rng = np.random.default_rng(0)
    ties = [(k + 0.5) / float(rate) for k in range(39)]
    for start in (*rng.uniform(0, 1.2, 200), *ties):
        part = start, start + float(rng.uniform(0.1, 1))
        display, reference = (_part(path, container, *part, by) for by in ("display", "rate"))
        assert display == reference, part


def test_a_turned_video_that_is_rewritten_is_turned(tmp_path):
    """A second stream makes the first be copied out, and its turn must not be lost."""
    turned = tmp_path / "turned.mp4"
    data = bytearray((CASES / "dash1.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12: the track header's matrix
    turn = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4")
    data[matrix : matrix + 36] = turn.tobytes()
    turned.write_bytes(data)
    np.testing.assert_array_equal(
        read_frames(turned, 3).frames,
        np.rot90(read_frames(CASES / "dash1.mp4", 3).frames, -1, axes=(1, 2)),
    )


def test_a_file_name_that_is_not_utf8_is_opened(tmp_path):
    name = b"caf\xe9.webm"
    path = Path(tmp_path, name.decode("utf-8", "surrogateescape"))
    shutil.copy(CASES / "live.webm", path)
    assert numbers(read_frames(path, 2).frames) == frame_indices(0, 59, 2).tolist()
    path = path.with_suffix(".mp4")
    shutil.copy(CASES / "vfr.mp4", path)
    assert numbers(read_frames(path, 2).frames) == frame_indices(0, 59, 2).tolist()
