from fractions import Fraction

import av
import numpy as np
import pytest

from flowjax.data.encode import write_mp4
from flowjax.errors import FlowjaxError


def blocks(frames: int = 5, height: int = 32, width: int = 48) -> np.ndarray:
    """Even blocks of colour, which halving the resolution of colours keeps."""
    colours = np.random.default_rng(0).integers(0, 256, (frames, height // 8, width // 8, 3))
    return np.kron(colours, np.ones((1, 8, 8, 1), np.int64)).astype(np.uint8)


def test_frames_come_back(tmp_path):
    path = tmp_path / "a.mp4"
    frames = blocks()
    write_mp4(path, frames, Fraction(30000, 1001))
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(30000, 1001)
        read = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(stream)])
    assert read.shape == frames.shape
    assert abs(read.astype(int) - frames).mean() < 8
    # The same frames in another order or with red and blue exchanged are far away.
    assert abs(read[::-1].astype(int) - frames).mean() > 40
    assert abs(read[..., ::-1].astype(int) - frames).mean() > 40


def test_same_frames_give_the_same_bytes(tmp_path):
    frames = np.kron(blocks(24, 48, 48), np.ones((1, 2, 2, 1), np.uint8))
    written = set()
    held = []
    for turn in range(12):
        write_mp4(tmp_path / "a.mp4", frames, 12.5)
        written.add((tmp_path / "a.mp4").read_bytes())
        held.append(np.random.default_rng(turn).bytes(10_000 * turn))  # other memory each time
    assert len(written) == 1


def test_readers_find_the_index_first(tmp_path):
    write_mp4(tmp_path / "a.mp4", blocks(), 10)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("frames", [1, 2, 40])
@pytest.mark.parametrize("shape", [(2, 2), (16, 16), (34, 66)])
def test_any_number_and_even_size(frames, shape, tmp_path):
    write_mp4(tmp_path / "a.mp4", np.full((frames, *shape, 3), 90, np.uint8), 5)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert [frame.to_ndarray(format="rgb24").shape for frame in file.decode(video=0)] == [
            (*shape, 3)
        ] * frames


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((2, 3, 4, 3), np.uint8), 5, "frames of 4 x 3 pixels .* must be even"),
        (np.zeros((2, 4, 5, 3), np.uint8), 5, "frames of 5 x 4 pixels .* must be even"),
        (np.zeros((0, 4, 4, 3), np.uint8), 5, "one frame at least"),
        (np.zeros((2, 4, 4, 3), np.float32), 5, "type float32 .* must be uint8"),
        (np.zeros((4, 4, 3), np.uint8), 5, r"shape \(4, 4, 3\)"),
        (np.zeros((2, 4, 4, 4), np.uint8), 5, r"shape \(2, 4, 4, 4\)"),
        (blocks(), 0, "0 frames per second"),
        (blocks(), -1, "must be positive"),
        (blocks(), float("nan"), "nan frames per second"),
    ],
)
def test_what_cannot_be_a_video(frames, fps, message, tmp_path):
    with pytest.raises(FlowjaxError, match=message):
        write_mp4(tmp_path / "a.mp4", frames, fps)
    assert not any(tmp_path.iterdir())


def test_file_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(FlowjaxError, match=r"folder\.mp4 cannot be written"):
        write_mp4(tmp_path / "folder.mp4", blocks(), 5)
    with pytest.raises(FlowjaxError, match=r"none/a\.mp4 cannot be written: No such file"):
        write_mp4(tmp_path / "none" / "a.mp4", blocks(), 5)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.mp4"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    write_mp4(path, blocks(), 5)
    old = path.read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", full, raising=True)
    with pytest.raises(FlowjaxError, match=r"a\.mp4 cannot be written: the disk is full"):
        write_mp4(path, blocks(7), 5)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
