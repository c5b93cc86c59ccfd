"""Videos, and the frames that were stored of them, are asked about alike."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from flowjax.asked.asked import Asked, ask_sample
from flowjax.data.encode import write_mp4
from flowjax.data.prepare_shard import write_shard
from flowjax.data.prepared import FAILURES, FRAMES, shard_path
from flowjax.data.prompt import Question
from flowjax.data.sample import Prepared, Sample
from flowjax.data.video_options import VideoOptions
from flowjax.errors import FlowjaxError
from flowjax.models.loaded import LoadedModel

CLIPS = {"wide.mp4": (30, 60, 80), "tall é.mp4": (7, 90, 34), "one.mp4": (1, 64, 64)}
"""Frames, height and width; ten frames a second."""


def asked(model: LoadedModel, sample: Sample) -> Asked | str:
    """How a model is asked, or why it cannot be: some read no video of one frame."""
    try:
        return ask_sample(model, sample)
    except FlowjaxError as error:
        return str(error)


def check_stored_frames(model: LoadedModel, folder: Path) -> None:
    """Prompts and pixel values are the same bit for bit, of the frames that the family chooses."""
    model = model.reading(VideoOptions(fps=4))
    rng = np.random.default_rng(0)
    samples = []
    for name, (frames, height, width) in CLIPS.items():
        write_mp4(folder / name, rng.integers(0, 256, (frames, height, width, 3), np.uint8), 10)
        samples.append(Sample(name, "test", folder / name, Question("What?", ("a", "b"), "B")))
    samples.append(replace(samples[0], start=0.5, end=1.3))
    for part in (FRAMES, FAILURES):
        (folder / "out" / part).mkdir(parents=True)
    assert not write_shard(folder / "out", 0, samples, model.frames, None).failed
    for place, sample in enumerate(samples):
        where = Prepared(shard_path(folder / "out", 0), place, model.frames)
        raw = asked(model, sample)
        stored = asked(model, replace(sample, prepared=where))
        if isinstance(raw, str) or isinstance(stored, str):
            assert raw == stored and sample.video.name == "one.mp4"
            continue
        assert raw.pixel_values.dtype == stored.pixel_values.dtype
        assert np.array_equal(raw.pixel_values, stored.pixel_values)
        assert raw.timestamps == stored.timestamps
        assert raw.repeated_frames == stored.repeated_frames
        assert raw.prompt.text == stored.prompt.text
        for field in ("ids", "video_position", "rope_position"):
            assert np.array_equal(getattr(raw.prompt, field), getattr(stored.prompt, field))
