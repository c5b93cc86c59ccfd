"""Frames to a vision tower's pixel values, as the checkpoints' own processors compute them.

Pillow resizes, on uint8, so results are those of the reference to the last bit before rescaling.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread

_LONG_SIDE = 640  # pixels; bounds what the first resize of `FramePreprocessor` makes
_LANCZOS, _BICUBIC = 1, 3  # Pillow's numbers, which configuration files use
_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]

UNREAD = (
    Unread(
        (
            "_valid_processor_keys", "_valid_kwargs_names", "model_valid_processing_keys",
            "image_processor_type", "video_processor_type", "feature_extractor_type",
            "processor_class", "do_convert_rgb", "return_tensors", "data_format",
            "input_data_format", "device", "disable_grouping", "auto_map",
        ),
        "names of classes, and arguments of a call; frames are in RGB",
        "transformers.BaseImageProcessor and BaseVideoProcessor, 4.40 to 5",
    ),
    Unread(
        (
            "aspect_ratio_setting", "image_grid_pinpoints", "do_pad", "size_divisor",
            "crop_to_patches", "min_patches", "max_patches", "dynamic_size", "max_image_tiles",
        ),
        "the tiling of large still images, and padding to the largest of a batch",
        "transformers.LlavaNextImageProcessor, LlavaOnevisionImageProcessor and "
        "GotOcr2ImageProcessor: their counterparts for videos do neither",
    ),
    Unread(
        ("pad_size",),
        "size that frames are padded to, which is off",
        "transformers.BaseVideoProcessor, 4.55 to 5",
        when=("do_pad", False),
    ),
    Unread(
        (
            "do_sample_frames", "fps", "num_frames", "min_frames", "max_frames", "max_duration",
            "initial_shift", "video_metadata", "return_metadata",
        ),
        "which frames of a video to take, which is not the preprocessor's part here",
        "transformers.BaseVideoProcessor.sample_frames; initial_shift: InternVLVideoProcessor",
    ),
)  # fmt: skip
"""What a preprocessor's file says besides how to compute pixel values of a frame."""

SQUARE_UNREAD = Unread(
    ("crop_size", "default_to_square"),
    "cropping is off, and the size is that of both sides",
    "transformers.SiglipImageProcessor, LlavaOnevisionVideoProcessor and InternVLVideoProcessor",
)


STRETCH_UNREAD = Unread(
    ("do_image_splitting", "default_to_square"),
    "the tiling of large still images, which frames do not go through",
    "transformers.SmolVLMProcessor, 4.50: frames are processed with do_image_splitting=False",
)


@dataclass(frozen=True)
class Normalisation:
    """Rescaling of uint8 by `factor`, then (x - mean) / std per channel (red, green, blue)."""

    factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def table(self) -> Float32[np.ndarray, "256 3"]:
        """The value of every uint8 in every channel."""
        rescaled = (np.arange(256) * self.factor).astype(np.float32)[:, None]
        return (rescaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)

    def squares(
        self,
        frames: UInt8[np.ndarray, "frames height width 3"],
        size: int,
        resized: Callable[[Image.Image], Image.Image],
    ) -> Float32[np.ndarray, "frames 3 size size"]:
        """Pixel values of the square in the middle of every frame, `resized` first."""
        squares = np.empty((len(frames), size, size, 3), np.uint8)
        for square, frame in zip(squares, frames, strict=True):
            square[...] = _centre(resized(Image.fromarray(frame)), size)
        values = self.table()[squares, np.arange(3)]
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class FramePreprocessor:
    """One square of every frame: the video preprocessing of PLLaVA, also used for InternVL.

    size: side of the square, S pixels.

    With short and long side of a frame and r = long / short: resize the short side to
    max(S, min(short, int(min(640, long) / r))), then to S, the long side in proportion each time,
    rounded down; cut an S x S square from the centre; normalise.
    """

    size: int
    normalisation: Normalisation

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "FramePreprocessor":
        """Read a parsed `preprocessor_config.json`; `source` names it in errors.

        Raises:
            FlowjaxError: a field with a value that is not supported, or that is not known.
        """
        return cls(*_read_crop(config, source))

    def seen(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t side side 3"]:
        """The part of the frames that a model reads: the square in the middle."""
        return centre_square(frames)

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> Float32[np.ndarray, "frames 3 size size"]:
        """Pixel values of frames in RGB."""
        return self.normalisation.squares(frames, self.size, self._resized)

    def _resized(self, image: Image.Image) -> Image.Image:
        ratio = max(image.size) / min(image.size)
        bound = int(min(_LONG_SIDE, max(image.size)) / ratio)
        image = _resize_short_side(image, max(self.size, min(*image.size, bound)))
        return _resize_short_side(image, self.size)


@dataclass(frozen=True)
class CropPreprocessor:
    """The centre of every frame: the video preprocessing of LLaVA-NeXT-Video in `transformers`.

    size: side of the square, S pixels.

    Resize the short side to S, the long side in proportion, rounded down; cut an S x S square from
    the centre; normalise.
    """

    size: int
    normalisation: Normalisation

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "CropPreprocessor":
        """Read a parsed `preprocessor_config.json`; `source` names it in errors.

        Raises:
            FlowjaxError: a field with a value that is not supported, or that is not known.
        """
        return cls(*_read_crop(config, source))

    def seen(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t side side 3"]:
        """The part of the frames that a model reads: the square in the middle."""
        return centre_square(frames)

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> Float32[np.ndarray, "frames 3 size size"]:
        """Pixel values of frames in RGB."""
        return self.normalisation.squares(
            frames, self.size, lambda image: _resize_short_side(image, self.size)
        )


@dataclass(frozen=True)
class SquarePreprocessor:
    """Every frame resized to a square, whatever its shape: that of InternVL in `transformers`.

    size: side of the square in pixels.
    """

    size: int
    normalisation: Normalisation

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "SquarePreprocessor":
        """Read a parsed `preprocessor_config.json`; `source` names it in errors.

        Raises:
            FlowjaxError: a field with a value that is not supported, or that is not known.
        """
        fields = HFConfig(config, f"{source}: ")
        if fields.take("do_center_crop", bool, False):
            raise FlowjaxError(f"{fields.name('do_center_crop')} is true; only false is supported")
        size = _side(fields, "size", 384, ("height", "width"))
        normalisation = read_normalisation(fields, _CLIP_MEAN, _CLIP_STD)
        fields.finish(*UNREAD, SQUARE_UNREAD)
        return cls(size, normalisation)

    def seen(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
        """The part of the frames that a model reads: all of them."""
        return frames

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> Float32[np.ndarray, "frames 3 size size"]:
        """Pixel values of frames in RGB."""
        shape = (self.size, self.size)
        return self.normalisation.squares(
            frames, self.size, lambda image: image.resize(shape, Image.Resampling.BICUBIC)
        )


@dataclass(frozen=True)
class StretchPreprocessor:
    """Every frame resized twice: that of SmolVLM2, as in its first release.

    First its long side to `longest`, the other in proportion, rounded down and then up to an even
    number; then both sides to `size`.

    In released files both are the same, so that the first release tiles no frame either.
    """

    longest: int
    size: int
    normalisation: Normalisation

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "StretchPreprocessor":
        """Read a parsed `preprocessor_config.json`; `source` names it in errors.

        Raises:
            FlowjaxError: a field with a value that is not supported, or that is not known.
        """
        fields = HFConfig(config, f"{source}: ")
        longest = _side(fields, "size", 4 * 364, ("longest_edge",))
        size = _side(fields, "max_image_size", 364, ("longest_edge",))
        if "video_sampling" in fields:
            video = fields.nested("video_sampling")
            longest = _side(video, "video_size", longest, ("longest_edge",))
            video.expect("do_image_splitting", False)
            video.finish(*UNREAD)
        normalisation = read_normalisation(fields, [0.5] * 3, [0.5] * 3, _LANCZOS)
        fields.finish(*UNREAD, STRETCH_UNREAD)
        return cls(longest, size, normalisation)

    def seen(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
        """The part of the frames that a model reads: all of them."""
        return frames

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> Float32[np.ndarray, "frames 3 size size"]:
        """Pixel values of frames in RGB."""
        height, width = frames.shape[1:3]
        ratio = width / height
        other = int(self.longest / ratio if width >= height else self.longest * ratio)
        other = max(other + other % 2, 1)
        first = (self.longest, other) if width >= height else (other, self.longest)
        then, lanczos = (self.size, self.size), Image.Resampling.LANCZOS
        return self.normalisation.squares(
            frames, self.size, lambda image: image.resize(first, lanczos).resize(then, lanczos)
        )


@dataclass(frozen=True)
class PatchPreprocessor:
    """Patches of whole frames at about their own resolution: that of VideoLLaMA3.

    patch: side of a patch in pixels.
    merge: patches per side of the blocks that the model merges.
    min_tokens, max_tokens: bounds on merged blocks, of one frame and of the whole video.

    With f = patch * merge, sides are the multiples of f nearest the frame's (half to even); frames
    of more than max_tokens * f^2 / frames pixels are made smaller, and those of fewer than
    min_tokens * f^2 larger (this comes last), with about the same ratio of sides.
    """

    patch: int
    merge: int
    min_tokens: int
    max_tokens: int
    normalisation: Normalisation

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], source: str, *, merge: int = 2
    ) -> "PatchPreprocessor":
        """Read a parsed `preprocessor_config.json`; `source` names it in errors.

        Raises:
            FlowjaxError: a field with a value that is not supported, or that is not known.
        """
        fields = HFConfig(config, f"{source}: ")
        patch = fields.positive("patch_size")
        least, most = fields.positive("min_tokens"), fields.positive("max_tokens")
        normalisation = read_normalisation(fields, [0.5] * 3, [0.5] * 3)
        fields.finish(*UNREAD)
        return cls(patch, merge, least, most, normalisation)

    def seen(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
        """The part of the frames that a model reads: all of them."""
        return frames

    def at_most(self, pixels: int) -> "PatchPreprocessor":
        """The same with another bound on the pixels of the whole video.

        Raises:
            FlowjaxError: it is less than a frame has at least.
        """
        block = (self.patch * self.merge) ** 2
        if pixels < self.min_tokens * block:
            raise FlowjaxError(
                f"max-pixels {pixels}: give at least {self.min_tokens * block}, to which this "
                "model's processor resizes a frame"
            )
        return dataclasses.replace(self, max_tokens=pixels // block)

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> Float32[np.ndarray, "frames rows columns merged values"]:
        """Patches of frames in RGB.

        Rows and columns are those of merged blocks, whose patches are in row-major order; the
        values of a patch are in the order channel, row, column.
        """
        count, height, width = frames.shape[:3]
        height, width = self.resized(count, height, width)
        resized = np.empty((count, height, width, 3), np.uint8)
        for target, frame in zip(resized, frames, strict=True):
            image = Image.fromarray(frame)
            target[...] = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
        values = self.normalisation.table()[resized, np.arange(3)]
        patch, merge = self.patch, self.merge
        rows, columns = height // patch, width // patch
        blocks = values.reshape(
            count, rows // merge, merge, patch, columns // merge, merge, patch, 3
        )
        ordered = blocks.transpose(0, 1, 4, 2, 5, 7, 3, 6)
        return ordered.reshape(count, rows // merge, columns // merge, merge**2, 3 * patch**2)

    def resized(self, count: int, height: int, width: int) -> tuple[int, int]:
        """Height and width that `count` frames of this height and width are resized to."""
        factor = self.patch * self.merge
        most = self.max_tokens * factor**2 // count
        least = self.min_tokens * factor**2
        new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
        if new_height * new_width > most:
            beta = math.sqrt(height * width / most)
            new_height = math.floor(height / beta / factor) * factor
            new_width = math.floor(width / beta / factor) * factor
        if new_height * new_width < least:
            beta = math.sqrt(least / (height * width))
            new_height = math.ceil(height * beta / factor) * factor
            new_width = math.ceil(width * beta / factor) * factor
        return new_height, new_width


def centre_square(frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t side side 3"]:
    """The largest square in the middle of every frame."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frames[:, top : top + side, left : left + side]


def _resize_short_side(image: Image.Image, size: int) -> Image.Image:
    short, long = min(image.size), max(image.size)
    other = int(size * long / short)
    shape = (size, other) if image.width <= image.height else (other, size)
    return image.resize(shape, Image.Resampling.BICUBIC)


def _centre(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def _read_crop(config: Mapping[str, Any], source: str) -> tuple[int, Normalisation]:
    """Side and normalisation of a processor that resizes the short side and crops a square."""
    fields = HFConfig(config, f"{source}: ")
    fields.expect("default_to_square", False)
    fields.expect("do_center_crop", True)
    size = _side(fields, "size", 224, ("shortest_edge",))
    crop = _side(fields, "crop_size", size, ("height", "width"))
    if crop != size:
        raise FlowjaxError(
            f"{fields.name('crop_size')} is {crop}; it must be {size}, the shortest edge of `size`"
        )
    normalisation = read_normalisation(fields, _CLIP_MEAN, _CLIP_STD)
    fields.finish(*UNREAD)
    return size, normalisation


def _side(fields: HFConfig, name: str, default: int, keys: tuple[str, ...]) -> int:
    """The side of a square, given as one number or as a mapping of `keys` to that number."""
    value = fields.take(name, object, default)
    if isinstance(value, Mapping):
        value = {key: side for key, side in value.items() if side is not None}
    sides = (
        list(value.values()) if isinstance(value, Mapping) and set(value) == set(keys) else [value]
    )
    if len(set(map(repr, sides))) > 1 or type(sides[0]) is not int or sides[0] < 1:
        wanted = " and ".join(f"`{key}`" for key in keys)
        raise FlowjaxError(
            f"{fields.name(name)} is {value!r}; it must be a whole number from 1, or {wanted} "
            "with one"
        )
    return sides[0]


def read_normalisation(
    fields: HFConfig, mean: list[float], std: list[float], resample: int = _BICUBIC
) -> Normalisation:
    """Take the fields about resizing's filter, rescaling and normalising; `mean` and `std` default.

    resample: the filter, as Pillow numbers it.

    Raises:
        FlowjaxError: a value that is not supported.
    """
    fields.expect("do_resize", True)
    fields.expect("resample", resample)
    fields.expect("do_rescale", True)
    fields.expect("do_normalize", True)
    factor = fields.take("rescale_factor", float, 1 / 255)
    normalisation = Normalisation(
        factor, _channels(fields, "image_mean", mean), _channels(fields, "image_std", std)
    )
    if not all(normalisation.std):
        raise FlowjaxError(f"{fields.name('image_std')} holds a zero")
    return normalisation


def _channels(fields: HFConfig, name: str, default: list[float]) -> tuple[float, float, float]:
    value = fields.take(name, list, default)
    if len(value) != 3 or not all(type(x) in {int, float} and math.isfinite(x) for x in value):
        raise FlowjaxError(f"{fields.name(name)} is {value}; it must be three numbers")
    red, green, blue = map(float, value)
    return red, green, blue
