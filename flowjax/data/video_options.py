"""How videos are read where it is not as the checkpoint says."""

import math
from dataclasses import dataclass
from typing import Any

from flowjax.errors import FlowjaxError


@dataclass(frozen=True)
class VideoOptions:
    """What a user may choose about the videos a model reads; None: as the checkpoint says.

    num_frames: of every video, evenly spaced.
    fps: frames a second, so that longer videos have more; in place of `num_frames`. Which they are
        is the family's `by_rate`.
    max_pixels: that frames are resized to at most: of one frame, or of the whole video, as the
        checkpoint's own bound counts them.
    """

    num_frames: int | None = None
    fps: int | float | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            FlowjaxError: names the option, its value and what would be right.
        """
        if self.num_frames is not None and self.fps is not None:
            raise FlowjaxError(
                f"frames {self.num_frames} and fps {self.fps:g}: give a number of frames or a "
                "rate, not both"
            )
        if self.num_frames is not None and self.num_frames < 1:
            raise FlowjaxError(f"frames {self.num_frames}: give at least 1")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise FlowjaxError(f"fps {self.fps}: give frames a second, above 0")
        if self.max_pixels is not None and self.max_pixels < 1:
            raise FlowjaxError(f"max-pixels {self.max_pixels}: give at least 1")

    @property
    def settings(self) -> dict[str, Any]:
        """Those that are given, for a manifest."""
        fps = None if self.fps is None else float(self.fps)
        values = {"num_frames": self.num_frames, "fps": fps, "max_pixels": self.max_pixels}
        return {name: value for name, value in values.items() if value is not None}

    def over(self, other: "VideoOptions") -> "VideoOptions":
        """These where they are given, and the other's elsewhere; frames and rate are one choice."""
        chosen = self if self.num_frames is not None or self.fps is not None else other
        pixels = other.max_pixels if self.max_pixels is None else self.max_pixels
        return VideoOptions(chosen.num_frames, chosen.fps, pixels)


AS_CHECKPOINT = VideoOptions()
"""Nothing chosen."""
