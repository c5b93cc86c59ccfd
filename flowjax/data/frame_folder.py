"""Videos as folders of pictures, one per frame, in the order of the numbers in their names."""

import re
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from flowjax.data.video import Choose, VideoClip, check_part, choose_frames
from flowjax.errors import FlowjaxError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def pictures_in(path: Path) -> list[Path]:
    """The pictures of a folder in the order in which they are shown."""
    files = (file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
    shown = (file for file in files if not file.name.startswith("."))
    return sorted(shown, key=lambda file: (_numbers(file.stem), file.name))


def _numbers(name: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def read_folder(
    path: Path,
    num_frames: int | Choose,
    *,
    rate: float,
    start: int | float | None = None,
    end: int | float | None = None,
) -> VideoClip:
    """Frames of a folder of pictures, chosen as `flowjax.data.video.read_frames` chooses them.

    Args:
        path: the folder.
        num_frames: how many frames; or what chooses them.
        rate: frames a second; picture i is shown at i / rate seconds.
        start, end: seconds.

    Raises:
        FlowjaxError: no pictures, one that cannot be read or is of another size, or see
            `read_frames`.
    """
    check_part(start, end)
    files = pictures_in(path)
    if not files:
        raise FlowjaxError(f"{path} has no pictures; a folder of frames holds {', '.join(ENDINGS)}")
    final = len(files) - 1
    first = 0 if start is None else max(0, round(start * rate))
    last = final if end is None else min(final, round(end * rate))
    if first > final:
        raise FlowjaxError(
            f"{path}: start ({start} s) is after the last frame, at {final / rate:.3f} s"
        )
    indices = choose_frames(num_frames, first, max(first, last), rate)
    wanted, back = np.unique(indices, return_inverse=True)
    frames = []
    for index in wanted:
        try:
            with Image.open(files[index]) as image:
                frames.append(np.asarray(image.convert("RGB")))
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise FlowjaxError(f"{files[index]} cannot be read as a picture: {error}") from error
        if frames[-1].shape != frames[0].shape:
            sizes = " and ".join(f"{w} x {h}" for h, w, _ in (frames[0].shape, frames[-1].shape))
            raise FlowjaxError(f"{files[index]}: pictures of {sizes} pixels in one video")
    return VideoClip(np.stack(frames)[back], indices, indices / rate, rate, len(files) / rate)
