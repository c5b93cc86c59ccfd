"""The frames of a sample as a model reads them, kept so that figures need no video and no model.

RUN/frames/00.npz    sample_id, frames uint8 [frames, height, width, 3], layers to draw
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flowjax.data.clip import read_clip
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.files import atomically, writing
from flowjax.models.loaded import LoadedModel

FOLDER = "frames"
LONG_SIDE = 448
"""Pixels to which larger pictures are made smaller."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """One picture per frame cell of a sample: uint8 RGB.

    layers: 0-based, of which something is to be drawn on them.
    """

    sample_id: str
    frames: UInt8[np.ndarray, "frames height width 3"]
    layers: tuple[int, ...]


def pictures_of(loaded: LoadedModel, sample: Sample, count: int, layers: Sequence[int]) -> Pictures:
    """The part of the frames that the model reads, one per frame cell.

    Args:
        loaded: the model.
        sample: its video is decoded once more.
        count: frame cells; where each is of several frames, the first of them is taken.
        layers: of which something is to be drawn.

    Raises:
        FlowjaxError: see `read_clip`.
    """
    clip = read_clip(sample, loaded.frames)
    chosen = np.arange(count) * len(clip.frames) // count
    frames = loaded.preprocess.seen(clip.frames[chosen])
    small = np.stack([_smaller(frame) for frame in frames])
    return Pictures(sample.sample_id, small, tuple(layers))


def _smaller(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    image = Image.fromarray(frame)
    image.thumbnail((LONG_SIDE, LONG_SIDE))
    return np.asarray(image)


def keep_pictures(run: Path, pictures: Sequence[Pictures]) -> None:
    """Make these the pictures in a run's folder; each file is complete or absent.

    Raises:
        FlowjaxError: the folder cannot be written to.
    """
    folder = run / FOLDER
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for index, kept in enumerate(pictures):
            atomically(folder / f"{index:02d}.npz", lambda path, kept=kept: _write(path, kept))
        for old in sorted(folder.glob("[0-9]*.npz"))[len(pictures) :]:
            old.unlink()


def _write(path: Path, kept: Pictures) -> None:
    with path.open("wb") as file:  # given a name, NumPy would add an ending to it
        np.savez_compressed(
            file,
            sample_id=np.array(kept.sample_id),
            frames=kept.frames,
            layers=np.array(kept.layers, np.int32),
        )


def read_pictures(run: Path) -> list[Pictures]:
    """The pictures in a run's folder, in order.

    Raises:
        FlowjaxError: a file that is damaged.
    """
    found = []
    for path in sorted((run / FOLDER).glob("[0-9]*.npz")):
        try:
            with path.open("rb") as handle, np.load(handle) as file:
                layers = tuple(file["layers"].tolist())
                found.append(Pictures(str(file["sample_id"]), file["frames"], layers))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise FlowjaxError(f"{path} cannot be read: {error}") from None
    return found


def frames_of(run: Path, sample_id: str) -> UInt8[np.ndarray, "frames height width 3"] | None:
    """The frames of one sample that a run's folder keeps; None if it keeps none of it.

    Raises:
        FlowjaxError: a file that is damaged.
    """
    found = (kept.frames for kept in read_pictures(run) if kept.sample_id == sample_id)
    return next(found, None)
