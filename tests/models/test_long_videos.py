"""Asking with other numbers of frames and pixels than the checkpoint's, against `transformers`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import flowjax as fj
from flowjax.data.encode import write_mp4
from flowjax.data.video_options import VideoOptions
from flowjax.errors import FlowjaxError
from tests.models import parity, test_llava_onevision, test_qwen2_5_vl, test_qwen3_vl
from tests.models.qwen_vl import video_inputs

SIDE, SHOWN, FPS = 72, 90, 10


def onevision(prompt, _):
    return parity.videos_5d(prompt.prompt, prompt.pixel_values)


def qwen2_5(prompt, config):
    depth = config.vision_config.temporal_patch_size
    shown = prompt.timestamps
    gap = (shown[-1] - shown[0]) / max(1, len(shown) - 1)
    inputs = video_inputs(prompt.prompt, prompt.pixel_values)
    return inputs | {"second_per_grid_ts": torch.tensor([depth * gap])}


def qwen3(prompt, _):
    return video_inputs(prompt.prompt, prompt.pixel_values)


FAMILIES = {
    "llava_onevision": (test_llava_onevision, "mha", onevision),
    "qwen2_5_vl": (test_qwen2_5_vl, "gqa-tied-no-full-layer", qwen2_5),
    "qwen3_vl": (test_qwen3_vl, "mha", qwen3),
}


class Case(NamedTuple):
    pair: parity.Pair
    inputs: object
    clip: Path


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory):
    module, name, inputs = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    made = module.case(folder, *module.CASES[name])
    clip = folder / "clip.mp4"
    write_mp4(clip, parity.random_frames(SHOWN, SIDE, SIDE), FPS)
    return Case(made.pair, inputs, clip)


def put(case, **options):
    question = parity.QUESTION
    return fj.ask(
        case.pair.ours, case.clip, question.stem, question.options, question.answer, **options
    )


@pytest.mark.parametrize("frames", [1, 8, 64])
def test_any_number_of_frames(case, frames):
    family = case.pair.ours.config.family
    if family == "qwen3_vl" and frames == 1:
        with pytest.raises(FlowjaxError, match="frames 1: family qwen3_vl reads at least 2"):
            put(case, frames=1)
        frames = 2
    asked = put(case, frames=frames)
    assert len(asked.frames) == len(asked.timestamps) == frames
    cells = [cell for cell in asked.layout.cells if cell.startswith("frame_")]
    assert len(cells) == (frames if family == "llava_onevision" else -(-frames // 2))
    ids = torch.from_numpy(asked.prompt.ids.astype(np.int64))[None]
    inputs = {**case.inputs(asked, case.pair.theirs.config), "input_ids": ids}
    parity.check_forward(parity.Asked(case.pair, asked.prompt, asked, inputs))


def test_a_rate(case):
    """Of nine seconds, at two a second; a slow rate gives as many as the family reads at least."""
    often, seldom = put(case, fps=2), put(case, fps=0.01)
    assert len(often.frames) == 18
    assert len(seldom.frames) == (1 if case.pair.ours.config.family == "llava_onevision" else 4)
    assert case.pair.ours.config.frames != 18


def test_fewer_pixels(case):
    family, options = case.pair.ours.config.family, {"frames": 4}
    if family == "llava_onevision":
        with pytest.raises(FlowjaxError, match="max-pixels 5000: family llava_onevision resizes"):
            put(case, max_pixels=5000)
        return
    whole, less = put(case, **options), put(case, **options, max_pixels=1024)
    rows, columns = whole.pixel_values.shape[1:3]
    fewer_rows, fewer_columns = less.pixel_values.shape[1:3]
    # A side of a block is 8 pixels; the bound is of one frame, or in Qwen3-VL of all four.
    frames = 4 if family == "qwen3_vl" else 1
    assert frames * 64 * fewer_rows * fewer_columns <= 1024 < frames * 64 * rows * columns
    assert len(less.prompt.video_position) == 2 * fewer_rows * fewer_columns
    most = case.pair.ours.preprocess.most
    again = less.model.reading(VideoOptions(max_pixels=most))
    assert again.preprocess == case.pair.ours.preprocess
