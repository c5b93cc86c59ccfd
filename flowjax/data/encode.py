"""Writing frames as an H.264 video."""

import math
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from jaxtyping import Shaped, UInt8

from flowjax.errors import FlowjaxError
from flowjax.files import atomically, writing

# One thread, and no times or versions in the file: the same frames give the same bytes. Looking
# ahead is off (`zerolatency`), for what x264's decides depends on memory that it did not write.
_CODEC = {"qp": "16", "tune": "zerolatency", "threads": "1"}
_CONTAINER = {"fflags": "+bitexact", "movflags": "+faststart"}


def write_mp4(path: Path, frames: Shaped[np.ndarray, "..."], fps: int | float | Fraction) -> None:
    """Write RGB frames, uint8 [frames, height, width, 3], as H.264 in MP4 (4:2:0 colour).

    The file appears when it is complete, or not at all. Its bytes depend on the frames, the rate
    and the version of the encoder only.

    Raises:
        FlowjaxError: no frames, odd height or width, a rate that is not positive, or a file that
            cannot be written.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise FlowjaxError(
            f"frames of shape {frames.shape} and type {frames.dtype} cannot be written as a video; "
            "they must be uint8 [frames, height, width, 3], one frame at least"
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise FlowjaxError(
            f"frames of {width} x {height} pixels cannot be written as H.264; width and height "
            "must be even"
        )
    rate = Fraction(fps).limit_denominator(1001) if math.isfinite(fps) else Fraction(0)
    if rate <= 0:
        raise FlowjaxError(f"{fps} frames per second; the rate must be positive")
    try:
        with writing(path):
            atomically(path, lambda temporary: _encode(temporary, frames, rate))
    except av.error.FFmpegError as error:
        raise FlowjaxError(f"{path} cannot be written: {error.strerror or error}") from error


def _encode(path: Path, frames: UInt8[np.ndarray, "frames height width 3"], rate: Fraction) -> None:
    with av.open(str(path), "w", format="mp4", container_options=_CONTAINER) as container:
        stream = container.add_stream("libx264", rate=rate, options=_CODEC)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
