"""Which frames are read at a rate, and what may be chosen."""

import ast
import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowjax.data.encode import write_mp4
from flowjax.data.frame_rate import ByRate
from flowjax.data.video import frame_indices, read_frames
from flowjax.data.video_options import VideoOptions
from flowjax.errors import FlowjaxError
from flowjax.models.registry import families
from tests.videos import moving_square

PROCESSORS = {
    "qwen2_vl": ("qwen2_vl", {"temporal_patch_size": 2, "min_frames": 4, "max_frames": 768}),
    "qwen2_5_vl": ("qwen2_vl", {"temporal_patch_size": 2, "min_frames": 4, "max_frames": 768}),
    "qwen3_vl": ("qwen3_vl", {"min_frames": 4, "max_frames": 768}),
    "video_llama_3": (
        "video_llama_3",
        {"temporal_patch_size": 1, "min_frames": 4, "max_frames": 180},
    ),
}
"""The processor of `transformers` that samples at a rate as a family does, and its defaults."""


def sample_frames(name: str):
    """The method of a video processor, whose module needs torchvision, as a function."""
    root = Path(importlib.util.find_spec("transformers").origin).parent / "models"
    tree = ast.parse((root / name / f"video_processing_{name}.py").read_text())
    (method,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "sample_frames"
    )
    scope = {"math": math, "np": np, "torch": torch, "VideoMetadata": object}
    exec(compile(ast.Module([method], []), name, "exec"), scope)
    return scope["sample_frames"]


THEIRS = {name: sample_frames(name) for name in {module for module, _ in PROCESSORS.values()}}


@pytest.mark.parametrize("family", PROCESSORS)
@settings(max_examples=150)
@given(
    total=st.integers(2, 60_000),
    fps=st.sampled_from([8.0, 23.976023976023978, 24.0, 25.0, 29.97002997002997, 30.0, 60.0]),
    rate=st.sampled_from([0.1, 0.5, 1.0, 1.7, 2.0, 4.0, 60.0]),
)
def test_the_frames_of_released_processors(family, total, fps, rate):
    module, defaults = PROCESSORS[family]
    processor = SimpleNamespace(**defaults, num_frames=None, fps=2.0)
    metadata = SimpleNamespace(total_num_frames=total, fps=fps)
    expected = np.asarray(THEIRS[module](processor, metadata=metadata, fps=rate))
    rule = families()[family].by_rate
    ours = rule.indices(total, rule.count(total, fps, rate))
    if rule.spread == "starts":
        # Where its steps add up to a little less than the video, theirs takes one more at its end.
        expected, more = np.split(expected, [len(ours)])
        assert len(more) <= 1 and (more >= total - 1).all()
        # PyTorch computes them in float32, which may round a frame's last share of one up.
        exact = np.arange(len(ours)) * total / len(ours)
        near = np.abs(exact - np.round(exact)) < 1e-6 * total
        assert np.isin(expected[near] - ours[near], (-1, 0, 1)).all()
        ours, expected = ours[~near], expected[~near]
    np.testing.assert_array_equal(ours, expected)


@given(total=st.integers(1, 5000), rate=st.floats(0.01, 100))
def test_other_families_take_the_middles_of_equal_parts(total, rate):
    rule = ByRate(most=64)
    count = rule.count(total, 25.0, rate)
    assert count == max(1, math.floor(min(total / 25.0 * rate, total, 64)))
    np.testing.assert_array_equal(rule.indices(total, count), frame_indices(0, total - 1, count))


def test_a_rate_counts_the_part_that_is_asked_about(tmp_path):
    clip = tmp_path / "clip.mp4"
    write_mp4(clip, moving_square(40), 10)
    asked = []

    def choose(total, fps):
        asked.append((total, fps))
        return np.array([0, total - 1])

    whole, part = read_frames(clip, choose), read_frames(clip, choose, start=1.0, end=2.0)
    assert asked == [(40, 10.0), (11, 10.0)]
    assert whole.indices.tolist() == [0, 39] and part.indices.tolist() == [10, 20]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((0,), "frames 0: give at least 1"),
        ((8, 2.0), "frames 8 and fps 2: give a number of frames or a rate, not both"),
        ((None, 0.0), "fps 0.0: give frames a second, above 0"),
        ((None, math.inf), "fps inf"),
        ((None, None, 0), "max-pixels 0: give at least 1"),
    ],
)
def test_refused(options, words):
    with pytest.raises(FlowjaxError, match=words):
        VideoOptions(*options)


def test_later_choices_go_over_earlier_ones():
    first = VideoOptions(fps=2.0, max_pixels=100)
    assert VideoOptions(num_frames=8).over(first) == VideoOptions(num_frames=8, max_pixels=100)
    assert VideoOptions(max_pixels=7).over(first) == VideoOptions(fps=2.0, max_pixels=7)
    assert VideoOptions().settings == {} and first.settings == {"fps": 2.0, "max_pixels": 100}
