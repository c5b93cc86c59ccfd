"""From decoded frames to the pixel values that a vision tower reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from flowjax.errors import FlowjaxError

LONGEST = 640
"""No side of the first resize exceeds this, where the crop allows it."""

Numbers = tuple[float, float, float]


@dataclass(frozen=True)
class FramePreprocessor:
    """The published preprocessing of PLLaVA and InternVL: square crops of whole frames.

    Two bicubic resizes on 8-bit values (Pillow's), centre crop, rescaling, normalisation.

    size: side of the square in pixels.
    rescale: factor from 8-bit values.
    mean, std: per channel, after rescaling.
    """

    size: int
    rescale: float
    mean: Numbers
    std: Numbers

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "FramePreprocessor":
        """Read a parsed `preprocessor_config.json`; `source` names it in errors.

        Raises:
            FlowjaxError: a field that changes the computation is not at its supported value.
        """
        for field in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
            _expect(config, source, field, (True,))
        _expect(config, source, "do_convert_rgb", (True,))
        _expect(config, source, "resample", (3,))
        size = _side(config.get("size"), f"{source}: size")
        if "crop_size" in config and _side(config["crop_size"], f"{source}: crop_size") != size:
            raise FlowjaxError(
                f"{source}: crop_size is {config['crop_size']!r}; it must equal size, {size}"
            )
        rescale = config.get("rescale_factor", 1 / 255)
        if not isinstance(rescale, int | float) or rescale <= 0:
            raise FlowjaxError(f"{source}: rescale_factor is {rescale!r}; it must be above 0")
        return cls(
            size=size,
            rescale=float(rescale),
            mean=_channels(config, source, "image_mean"),
            std=_channels(config, source, "image_std"),
        )

    def __call__(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float[np.ndarray, "t 3 s s"]:
        """Pixel values float32 [t, 3, size, size] of RGB frames."""
        pixels = np.stack([self._crop(frame) for frame in frames]).astype(np.float32)
        scaled = pixels * np.float32(self.rescale)
        normed = (scaled - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(normed.transpose(0, 3, 1, 2))

    def _crop(self, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
        image = Image.fromarray(frame)
        short, long = sorted(image.size)
        first = max(self.size, min(short, int(min(LONGEST, long) * short / long)))
        image = _resize(_resize(image, first), self.size)
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))


def _resize(image: Image.Image, short: int) -> Image.Image:
    """Resize so that the shorter side is `short`; the longer one is rounded down."""
    width, height = image.size
    if width <= height:
        size = short, int(short * height / width)
    else:
        size = int(short * width / height), short
    return image.resize(size, Image.Resampling.BICUBIC)


def _expect(
    config: Mapping[str, Any], source: str, field: str, allowed: tuple[object, ...]
) -> None:
    value = config.get(field, allowed[0])
    if value not in allowed:
        raise FlowjaxError(f"{source}: {field} is {value!r}; only {allowed[0]!r} is supported")


def _side(value: object, field: str) -> int:
    if isinstance(value, Mapping):
        sides = {name: value[name] for name in ("shortest_edge", "height", "width") if name in value}
        if len(set(sides.values())) == 1 and set(value) == set(sides):
            value = next(iter(sides.values()))
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise FlowjaxError(f"{field} is {value!r}; it must be one side of a square in pixels")
    return value


def _channels(config: Mapping[str, Any], source: str, field: str) -> Numbers:
    value = config.get(field)
    if not isinstance(value, list) or len(value) != 3:
        raise FlowjaxError(f"{source}: {field} is {value!r}; it must be three numbers")
    red, green, blue = (float(number) for number in value)
    return red, green, blue
