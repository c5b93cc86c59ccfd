"""Videos to patches that span several frames, as the processors of Qwen2.5-VL and Qwen3-VL do.

`transformers` resizes videos with torchvision; here Pillow does, whose bicubic filter is the same
up to rounding.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from flowjax.data.preprocess import UNREAD, Normalisation, read_normalisation
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread

_LONGEST_RATIO = 200
"""Of the long to the short side of a frame."""

PATCHES_UNREAD = Unread(
    ("max_image_size", "max_video_tokens", "default_to_square", "crop_size"),
    "limits that apply only with cap_pixels_per_frame, and shapes that `size` says otherwise",
    "transformers.Qwen2VLVideoProcessor and Qwen3VLVideoProcessor, 4.52 to 5",
)


@dataclass(frozen=True)
class TemporalPatchPreprocessor:
    """Patches of whole frames at about their own resolution, several frames deep.

    patch: side of a patch in pixels.
    frames_per_patch: frames that a patch spans; the last frame is repeated to fill the last one.
    merge: patches per side of the blocks that the model merges.
    least, most: pixels, of one frame, or of all frames if `whole_video`.

    With f = patch * merge, sides are the multiples of f nearest the frame's (half to even); where
    that makes more than `most` pixels, sides are made smaller and rounded down, and larger and
    rounded up where it makes fewer than `least`, with about the same ratio of sides.
    """

    patch: int
    frames_per_patch: int
    merge: int
    least: int
    most: int
    whole_video: bool
    normalisation: Normalisation

    def seen(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
        """The part of the frames that a model reads: all of them."""
        return frames

    def at_most(self, pixels: int) -> "TemporalPatchPreprocessor":
        """The same with another bound on pixels, as `size.longest_edge` of the configuration.

        Raises:
            FlowjaxError: it is below the other bound.
        """
        if pixels < self.least:
            of = "all frames together" if self.whole_video else "a frame"
            raise FlowjaxError(
                f"max-pixels {pixels}: give at least {self.least}, to which this model's processor "
                f"resizes {of}"
            )
        return dataclasses.replace(self, most=pixels)

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> Float32[np.ndarray, "patches rows columns block values"]:
        """Patches of frames in RGB.

        Rows and columns are those of blocks, whose patches are in row-major order; the values of a
        patch are in the order channel, frame, row, column.

        Raises:
            FlowjaxError: frames that are too narrow, or too few.
        """
        count, height, width = frames.shape[:3]
        height, width = self.resized(count, height, width)
        depth = self.frames_per_patch
        resized = np.empty((-(-count // depth) * depth, height, width, 3), np.uint8)
        for target, frame in zip(resized, frames, strict=False):
            image = Image.fromarray(frame)
            target[...] = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
        resized[count:] = resized[count - 1]
        values = self.normalisation.table()[resized, np.arange(3)]
        patch, merge = self.patch, self.merge
        rows, columns = height // patch // merge, width // patch // merge
        blocks = values.reshape(-1, depth, rows, merge, patch, columns, merge, patch, 3)
        ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
        return ordered.reshape(-1, rows, columns, merge**2, 3 * depth * patch**2)

    def resized(self, count: int, height: int, width: int) -> tuple[int, int]:
        """Height and width that `count` frames of this height and width are resized to."""
        factor, frames, counted = self.patch * self.merge, 1, 1
        if self.whole_video:
            if count < self.frames_per_patch:
                raise FlowjaxError(
                    f"{count} frames; this model reads at least {self.frames_per_patch}"
                )
            frames = count
            counted = round(count / self.frames_per_patch) * self.frames_per_patch
            scale = max(1.0, factor / height, factor / width)
            height, width = int(height * scale), int(width * scale)
        if max(height, width) / min(height, width) > _LONGEST_RATIO:
            raise FlowjaxError(
                f"frames of {width} x {height} pixels; the long side may be at most "
                f"{_LONGEST_RATIO} times the short one"
            )
        new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
        if counted * new_height * new_width > self.most:
            beta = math.sqrt(frames * height * width / self.most)
            new_height = max(factor, math.floor(height / beta / factor) * factor)
            new_width = max(factor, math.floor(width / beta / factor) * factor)
        elif counted * new_height * new_width < self.least:
            beta = math.sqrt(self.least / (frames * height * width))
            new_height = math.ceil(height * beta / factor) * factor
            new_width = math.ceil(width * beta / factor) * factor
        return new_height, new_width


@dataclass(frozen=True)
class ProcessorDefaults:
    """What a processor assumes where its configuration has no field."""

    patch: int
    least: int
    most: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    whole_video: bool

    def read(self, config: Mapping[str, Any], source: str) -> TemporalPatchPreprocessor:
        """Read a parsed preprocessor configuration; `source` names it in errors.

        Raises:
            FlowjaxError: a field with a value that is not supported, or that is not known.
        """
        fields = HFConfig(config, f"{source}: ")
        least, most = self._pixels(fields)
        # Further limits on the pixels of a frame, which the processors do not apply by default.
        fields.take("cap_pixels_per_frame", bool, False)
        if config.get("cap_pixels_per_frame"):
            raise FlowjaxError(f"{fields.name('cap_pixels_per_frame')} must be false or null")
        if not 1 <= least <= most:
            raise FlowjaxError(
                f"{fields.name('size')} bounds the pixels by {least} and {most}; the first must be "
                "at least 1 and not above the second"
            )
        patch = fields.positive("patch_size", self.patch)
        depth, merge = fields.positive("temporal_patch_size", 2), fields.positive("merge_size", 2)
        normalisation = read_normalisation(fields, list(self.mean), list(self.std))
        fields.expect("do_center_crop", False)
        fields.finish(*UNREAD, PATCHES_UNREAD)
        return TemporalPatchPreprocessor(
            patch, depth, merge, least, most, self.whole_video, normalisation
        )

    def _pixels(self, fields: HFConfig) -> tuple[int, int]:
        """Bounds on pixels: `size`, which Qwen2.5-VL's older fields override."""
        default = {"shortest_edge": self.least, "longest_edge": self.most}
        size = HFConfig(fields.take("size", dict, default), fields.name("size."))
        least, most = size.positive("shortest_edge"), size.positive("longest_edge")
        size.finish()
        if self.whole_video:
            return least, most
        return fields.positive("min_pixels", least), fields.positive("max_pixels", most)


QWEN2_5_VL = ProcessorDefaults(
    patch=14,
    least=128 * 28**2,
    most=768 * 28**2,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    whole_video=False,
)
QWEN3_VL = ProcessorDefaults(
    patch=16,
    least=128 * 32**2,
    most=768 * 32**2,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    whole_video=True,
)
