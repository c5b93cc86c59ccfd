"""Which frames of a video a rate takes, such as two a second."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

Spread = Literal["middles", "starts", "ends"]


@dataclass(frozen=True)
class ByRate:
    """As many frames as a video's length times the rate, within bounds, spread evenly.

    spread: over the video's n frames, k of them: the "middles" of k equal parts (see
        `flowjax.data.video.frame_indices`); their "starts", as the processor of Qwen2.5-VL takes
        them (`floor(i n / k)`, which it rounds as float32 does); or both "ends" and between them,
        as that of Qwen3-VL (`round(i (n - 1) / (k - 1))`).
    least, most: frames; never more than the video has. No bound above where None.
    multiple: their number is rounded down to one of this.
    """

    spread: Spread = "middles"
    least: int = 1
    most: int | None = None
    multiple: int = 1

    def count(self, total: int, fps: float, rate: int | float) -> int:
        """Number of frames taken of `total`, which are shown at `fps`, at `rate` a second."""
        wanted = max(total / fps * rate, self.least)
        bounded = min(wanted, total if self.most is None else min(self.most, total))
        return max(1, math.floor(bounded / self.multiple) * self.multiple)

    def indices(self, total: int, count: int) -> Int64[np.ndarray, " count"]:
        """Which of `total` frames `count` are, from 0."""
        if self.spread == "starts":
            return np.arange(count, dtype=np.int64) * total // count
        if self.spread == "ends":
            return np.linspace(0, total - 1, count).round().astype(np.int64)
        return middles(0, total - 1, count)


@dataclass(frozen=True)
class AtRate:
    """What chooses the frames of every video at a rate; see `flowjax.data.video.Choose`.

    rate: frames a second.
    rule: a family's.
    least, most: that the family reads; what a video has too few of is shown more than once.
    """

    rate: float
    rule: ByRate
    least: int
    most: int | None

    def __call__(self, total: int, fps: float) -> Int64[np.ndarray, " frames"]:
        """Which of `total` frames at `fps` a second, from 0, in order."""
        count = self.rule.count(total, fps, self.rate)
        indices = self.rule.indices(total, count if self.most is None else min(count, self.most))
        missing = max(0, self.least - len(indices))
        return np.concatenate([indices, np.full(missing, indices[-1])])

    @property
    def settings(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "AtRate":
        """What gave these settings.

        Raises:
            TypeError: nothing did.
        """
        return cls(**{**settings, "rule": ByRate(**settings["rule"])})


def middles(first: int, last: int, count: int) -> Int64[np.ndarray, " count"]:
    """The middle frames of `count` equal parts of `[first, last]`.

    See `flowjax.data.video.frame_indices`.
    """
    gap = (last - first) / count
    return (first + gap / 2 + np.round(gap * np.arange(count))).astype(np.int64)
