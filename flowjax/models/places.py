"""Where a frame's video tokens lie in its picture, for projectors to say of theirs."""

import math

import numpy as np
from jaxtyping import Int


def square_places(
    positions: Int[np.ndarray, " n"], frames: int
) -> Int[np.ndarray, "frames side side"]:
    """Frames of equally many tokens, row by row of a square; what no frame has a share in is left.

    positions: of the video's tokens in the prompt, in their order.
    """
    side = math.isqrt(len(positions) // frames)
    return positions[: frames * side**2].reshape(frames, side, side)


def block_places(
    positions: Int[np.ndarray, " n"], pixels: tuple[int, ...]
) -> Int[np.ndarray, "frames rows columns"]:
    """A token for each block of patches, row by row.

    pixels: shape of pixel values [frames, rows, columns, patches of a block, values].
    """
    return positions.reshape(pixels[:3])
