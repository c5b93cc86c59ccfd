import itertools

import numpy as np
import pytest

from experiments.demo_clips import write_demo_clips
from flowjax.data.prompt import Question
from flowjax.data.video import read_frames
from flowjax.errors import FlowjaxError


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    samples = write_demo_clips(tmp_path_factory.mktemp("demo") / "new" / "clips")
    return {sample.task: sample for sample in samples}


def chosen(sample) -> str:
    return sample.options["ABCD".index(sample.answer)]


def frames_of(sample, count: int = 8) -> np.ndarray:
    return read_frames(sample.video, count).frames.astype(int)


def nearness(frames: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a pixel has about this colour; compression blurs edges."""
    return abs(frames - np.array(colour)).max(axis=-1) < 40


def middle(mask: np.ndarray) -> np.ndarray:
    """(row, column) of the middle of a shape in every frame."""
    return np.array([np.argwhere(frame).mean(axis=0) for frame in mask])


def test_samples_are_questions(clips):
    assert set(clips) == {
        "moving_direction",
        "scene_transition",
        "action_sequence",
        "object_count",
    }
    for sample in clips.values():
        Question(sample.question, sample.options, sample.answer)
        assert sample.video.stat().st_size < 50_000
        assert not read_frames(sample.video, 8).repeated
    assert sorted(sample.answer for sample in clips.values()) == list("ABCD")


def test_same_clips_every_time(clips, tmp_path):
    for sample in write_demo_clips(tmp_path):
        assert sample.video.read_bytes() == clips[sample.task].video.read_bytes()


def test_red_square_moves_to_the_right(clips):
    square = middle(nearness(frames_of(clips["moving_direction"]), (210, 45, 45)))
    assert (np.diff(square[:, 1]) > 5).all()
    assert np.ptp(square[:, 0]) < 2
    assert chosen(clips["moving_direction"]) == "To the right."


def test_background_goes_from_blue_to_green(clips):
    corner = frames_of(clips["scene_transition"])[:, 5, 5]
    assert [int(colour.argmax()) for colour in corner] == [2] * 4 + [1] * 4
    assert chosen(clips["scene_transition"]) == "From blue to green."


def test_disc_rises_before_square_falls(clips):
    frames = frames_of(clips["action_sequence"])
    disc, square = (
        middle(nearness(frames, colour))[:, 0] for colour in ((240, 205, 60), (45, 80, 190))
    )
    assert (np.diff(disc)[:3] < -5).all()
    assert np.ptp(disc[4:]) < 2
    assert np.ptp(square[:4]) < 2
    assert (np.diff(square)[4:] > 5).all()
    assert chosen(clips["action_sequence"]) == "The yellow disc rises, then the blue square falls."


def test_three_discs_in_every_frame(clips):
    for green in nearness(frames_of(clips["object_count"]), (40, 150, 70)):
        left = {tuple(pixel) for pixel in np.argwhere(green)}
        discs = 0
        while left:
            discs += 1
            edge = [left.pop()]
            while edge:
                row, column = edge.pop()
                steps = itertools.product((-1, 0, 1), repeat=2)
                near = left & {(row + down, column + right) for down, right in steps}
                left -= near
                edge.extend(near)
        assert discs == 3
    assert chosen(clips["object_count"]) == "Three."


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FlowjaxError, match="clips cannot be made"):
        write_demo_clips(tmp_path / "file" / "clips")
