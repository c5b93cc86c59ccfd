"""Frames for test videos."""

import numpy as np


def moving_square(frames: int, size: int = 64) -> np.ndarray:
    """A square that moves to the right: uint8 [frames, size, size, 3]."""
    video = np.full((frames, size, size, 3), 200, np.uint8)
    for index, frame in enumerate(video):
        left = 2 + (size - 20) * index // max(1, frames - 1)
        frame[20:36, left : left + 16] = (200, 40, 40)
    return video
