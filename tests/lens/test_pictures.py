"""The frames that are kept for drawing."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flowjax.data.encode import write_mp4
from flowjax.data.preprocess import SquarePreprocessor
from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.lens import pictures
from flowjax.lens.pictures import FOLDER, Pictures, keep_pictures, pictures_of, read_pictures
from flowjax.models.checkpoint import load_model
from flowjax_convert.run import convert


@pytest.fixture(scope="module")
def loaded(pllava_oracle, tmp_path_factory):
    out = tmp_path_factory.mktemp("pictures") / "model"
    convert(str(pllava_oracle), out)
    return load_model(out, parameters=False)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A wide clip that gets brighter, with black bars at the left and the right."""
    path = tmp_path_factory.mktemp("clips") / "wide.mp4"
    frames = np.zeros((40, 64, 128, 3), np.uint8)
    frames[:, :, 32:96] = np.linspace(40, 230, 40).astype(np.uint8)[:, None, None, None]
    write_mp4(path, frames, 10)
    return Sample("wide", "", path, Question("What?", ("this", "that"), "A"))


def test_a_picture_is_what_the_model_reads(loaded, sample):
    found = pictures_of(loaded, sample, loaded.config.frames, (1, 3))
    assert (found.sample_id, found.layers) == ("wide", (1, 3))
    assert found.frames.shape == (loaded.config.frames, 64, 64, 3)
    assert found.frames[:, 4:-4, 4:-4].min() > 20  # nothing of the bars
    brightness = found.frames.mean((1, 2, 3))
    assert (np.diff(brightness) > 10).all()


def test_a_model_of_whole_frames_has_whole_pictures(loaded, sample):
    whole = dataclasses.replace(loaded, preprocess=SquarePreprocessor.from_config({}, "none"))
    found = pictures_of(whole, sample, 2, ())
    assert found.frames.shape == (2, 64, 128, 3)
    every = pictures_of(whole, sample, loaded.config.frames, ()).frames
    # Of the frames that share a cell, the first.
    np.testing.assert_array_equal(found.frames, every[:: loaded.config.frames // 2])


def test_large_pictures_are_made_smaller(loaded, sample, monkeypatch):
    monkeypatch.setattr(pictures, "LONG_SIDE", 16)
    assert pictures_of(loaded, sample, 2, ()).frames.shape == (2, 16, 16, 3)


def test_pictures_are_kept_and_read_again(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), np.uint8)
    kept = [Pictures("a/0 $x$", frames, (0, 7)), Pictures("b", frames[:1], ())]
    keep_pictures(tmp_path, kept)
    found = read_pictures(tmp_path)
    assert [one.sample_id for one in found] == ["a/0 $x$", "b"]
    assert [one.layers for one in found] == [(0, 7), ()]
    for ours, expected in zip(found, kept, strict=True):
        np.testing.assert_array_equal(ours.frames, expected.frames)
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["00.npz", "01.npz"]
    keep_pictures(tmp_path, kept[1:])
    assert [one.sample_id for one in read_pictures(tmp_path)] == ["b"]


def test_a_run_without_pictures_has_none(tmp_path):
    assert read_pictures(tmp_path) == []


def test_damaged_pictures_are_named(tmp_path):
    keep_pictures(tmp_path, [Pictures("a", np.zeros((1, 2, 2, 3), np.uint8), ())])
    path = tmp_path / FOLDER / "00.npz"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(FlowjaxError, match=r"00\.npz cannot be read"):
        read_pictures(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / FOLDER).write_text("a file")
    with pytest.raises(FlowjaxError, match="cannot be written"):
        keep_pictures(tmp_path, [])
    assert Path(tmp_path / FOLDER).read_text() == "a file"
