"""The frames of a sample, wherever they are."""

import hashlib
from pathlib import Path

from flowjax.data.frame_folder import pictures_in, read_folder
from flowjax.data.prepared import prepared_digest, read_prepared
from flowjax.data.sample import Sample
from flowjax.data.video import Choose, VideoClip, read_frames

FRAME_RATE = 1.0
"""Frames a second of a folder of frames that says none."""


def read_clip(sample: Sample, num_frames: int | Choose) -> VideoClip:
    """Frames of the part of a video that a sample is about.

    Args:
        sample: its video is a file or a folder of frames, or its frames are stored.
        num_frames: how many frames; or what chooses them.

    Raises:
        FlowjaxError: see `read_frames` and `read_folder`.
    """
    if sample.prepared is not None:
        return read_prepared(sample.prepared, num_frames)
    if sample.video.is_dir():
        rate = sample.rate or FRAME_RATE
        return read_folder(sample.video, num_frames, rate=rate, start=sample.start, end=sample.end)
    return read_frames(sample.video, num_frames, start=sample.start, end=sample.end, by=sample.by)


def sample_digest(sample: Sample) -> str:
    """SHA-256 of a sample's video; empty where it cannot be read."""
    if sample.prepared is not None:
        return prepared_digest(sample.prepared)
    return video_digest(sample.video)


def video_digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's pictures; empty where it cannot be read."""
    try:
        if path.is_dir():
            total = hashlib.sha256()
            for picture in pictures_in(path):
                total.update(repr((picture.name, video_digest(picture))).encode())
            return total.hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):  # ValueError: a null character in the path
        return ""
