"""Videos of every awkward kind in published layouts: read as benchmarks, and prepared, the same."""

import json
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from flowjax.data.benchmark import benchmark_of, read_benchmark
from flowjax.data.clip import read_clip
from flowjax.data.encode import write_mp4
from flowjax.data.prepare import Plan, prepare
from flowjax.data.video import frame_indices
from flowjax.errors import FlowjaxError
from tests.data.test_video_cases import CASES, numbers

OPTIONS = ["red", "green", "red"]
ASKED = {"question": "What moves?", "candidates": OPTIONS, "answer": "green"}
FRAMES = 4


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def shades(count, height=32, width=48):
    """Frames that get lighter: frame k is (20 k, 20 k, 20 k)."""
    frames = np.arange(count, dtype=np.uint8)[:, None, None, None] * 20
    return np.broadcast_to(frames, (count, height, width, 3))


def shade_of(frames):
    """The frame that each shows."""
    return np.round(frames.mean(axis=(1, 2, 3)) / 20).astype(int).tolist()


def encode(path, frames, codec, pixels):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture.reformat(format=pixels)))
        container.mux(stream.encode())


def turned(path):
    """A wide video that its header turns by a quarter; its left half is light."""
    frames = np.zeros((6, 32, 64, 3), np.uint8)
    frames[:, :, :32] = 240
    write_mp4(path, frames, 10)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12: the track header's matrix
    turn = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4")
    data[matrix : matrix + 36] = turn.tobytes()
    path.write_bytes(data)


@pytest.fixture(scope="module")
def tvbench(tmp_path_factory):
    """The names of the entries, and a folder in TVBench's layout that has them in this order."""
    root = tmp_path_factory.mktemp("awkward") / "TV Bench é"
    videos = root / "video" / "action_sequence"
    videos.mkdir(parents=True)
    (root / "json").mkdir()
    for name in ("vfr.mp4", "live.webm", "pipe.mkv", "ssv2_0.webm"):
        shutil.copy(CASES / name, videos / name)
    for count in (1, 3):
        write_mp4(videos / f"{count} frames - 動画.mp4", shades(count), 10)
    write_mp4(videos / "narrow.mp4", shades(12, 18, 34), 10)
    encode(videos / "odd.avi", shades(12, 33, 47), "ffv1", "bgr0")
    encode(videos / "grey.mkv", shades(12), "libx264", "gray")
    encode(videos / "old.avi", shades(12), "mpeg4", "yuv420p")
    turned(videos / "turned.mp4")
    entries = {
        "the end": {"video": "vfr.mp4", "start": 6.0, "end": 7.0},
        "beyond the end": {"video": "vfr.mp4", "start": 6.5, "end": 99.0},
        "after the end": {"video": "vfr.mp4", "start": 8.0, "end": 9.0},
        "no duration": {"video": "live.webm"},
        "matroska": {"video": "pipe.mkv"},
        "vp9": {"video": "ssv2_0.webm"},
        "one frame": {"video": "1 frames - 動画.mp4"},
        "three frames": {"video": "3 frames - 動画.mp4"},
        "narrow": {"video": "narrow.mp4"},
        "odd": {"video": "odd.avi"},
        "grey": {"video": "grey.mkv"},
        "old": {"video": "old.avi"},
        "turned": {"video": "turned.mp4"},
        "again": {"video": "turned.mp4"},
        "missing": {"video": "gone.mp4"},
    }
    text = json.dumps([ASKED | entry for entry in entries.values()])
    (root / "json" / "action_sequence.json").write_text(text, encoding="utf-8")
    return list(entries), root


def clips(names, root):
    """What every entry shows, or why not."""
    found = {}
    for name, sample in zip(names, read_benchmark(root), strict=True):
        assert sample.question.options == tuple(OPTIONS) and sample.question.answer == "B"
        try:
            found[name] = read_clip(sample, FRAMES)
        except FlowjaxError as error:
            found[name] = str(error)
    return found


def test_which_frames_are_read(tvbench):
    names, root = tvbench
    assert benchmark_of(root).name == "tvbench"
    found = clips(names, root)
    assert "gone.mp4" in found.pop("missing")
    assert "start (8.0 s) is after the last frame" in found.pop("after the end")
    for name, first, last in (
        ("the end", 30, 59), ("beyond the end", 45, 59), ("no duration", 0, 59),
        ("matroska", 0, 59), ("vp9", 0, 36),
    ):  # fmt: skip
        expected = frame_indices(first, last, FRAMES).tolist()
        assert numbers(found[name].frames) == found[name].indices.tolist() == expected
    assert shade_of(found["one frame"].frames) == [0] * FRAMES and found["one frame"].repeated
    three = found["three frames"]
    assert shade_of(three.frames) == three.indices.tolist() and three.repeated
    for name, height, width in (
        ("narrow", 18, 34), ("odd", 33, 47), ("grey", 32, 48), ("old", 32, 48),
    ):  # fmt: skip
        assert found[name].frames.shape == (FRAMES, height, width, 3)
        shown = frame_indices(0, 11, FRAMES)
        if name == "grey":  # from 0 to 255, and read as from 16 to 235, as nothing says otherwise
            shown = np.round((20 * shown - 16) * 255 / 219 / 20).astype(int)
        assert shade_of(found[name].frames) == shown.tolist()
    assert np.ptp(found["grey"].frames, axis=-1).max() <= 1
    upright = found["turned"].frames
    assert upright.shape == (FRAMES, 64, 32, 3)
    assert upright[:, :32].mean() > 200 and upright[:, 32:].mean() < 40
    np.testing.assert_array_equal(found["again"].frames, upright)


def test_prepared_they_are_the_same(tvbench, tmp_path):
    names, root = tvbench
    plan = Plan.of(read_benchmark(root))
    assert len(plan.clips) == len(names) - 1  # two questions share one
    failed = prepare(plan, root, tmp_path / "out", frames=FRAMES)
    assert len(failed) == 2
    raw, stored = clips(names, root), clips(names, tmp_path / "out")
    for name in names:
        one, other = raw[name], stored[name]
        if isinstance(one, str):
            assert one == other
            continue
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.timestamps, other.timestamps)
        assert (one.fps, one.duration) == (other.fps, other.duration)


def test_frame_folders_are_prepared_too(tmp_path):
    """MVBench's, with a name that has blanks; a part of it, up to and over its end."""
    root = tmp_path / "MVBench"
    pictures = root / "video" / "tvqa" / "frames_fps3_hq" / "a clip - é"
    pictures.mkdir(parents=True)
    (root / "json").mkdir()
    for index, frame in enumerate(shades(12, 9, 7)):
        Image.fromarray(frame).save(pictures / f"{index + 1}.png")
    entry = ASKED | {"video": pictures.name}
    entries = [entry | {"start": 0.0, "end": 4.0}, entry | {"start": 3.0, "end": 99.0}]
    (root / "json" / "episodic_reasoning.json").write_text(json.dumps(entries), "utf-8")
    raw = read_benchmark(root)
    assert not prepare(Plan.of(raw), root, tmp_path / "out", frames=FRAMES)
    for (first, last), one, other in zip(
        ((0, 11), (9, 11)), raw, read_benchmark(tmp_path / "out"), strict=True
    ):
        clip, kept = read_clip(one, FRAMES), read_clip(other, FRAMES)
        assert shade_of(clip.frames) == frame_indices(first, last, FRAMES).tolist()
        np.testing.assert_array_equal(clip.frames, kept.frames)
