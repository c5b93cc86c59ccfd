"""How a notebook shows an asked prompt: the frames, and the text coloured by token group."""

import base64
import io
import itertools
from html import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flowjax.layout import TokenLayout

HEIGHT = 96
"""Pixels of a frame in the strip."""

COLOURS = ("#dbe9f6", "#fde5cf", "#dff0d8", "#f6dbe9", "#ece5f5", "#f5f0cf", "#d9f0ee")


def frame_strip(frames: UInt8[np.ndarray, "frames height width 3"]) -> str:
    """The frames beside each other, as one image that is part of the text."""
    small = []
    for frame in frames:
        image = Image.fromarray(frame)
        width = max(1, round(image.width * HEIGHT / image.height))
        small.append(np.asarray(image.resize((width, HEIGHT))))
    out = io.BytesIO()
    Image.fromarray(np.concatenate(small, axis=1)).save(out, format="JPEG", quality=80)
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return f'<img alt="{len(frames)} frames" src="data:image/jpeg;base64,{data}">'


def coloured_prompt(layout: TokenLayout, texts: list[str]) -> str:
    """The prompt with a colour for every cell; a frame's tokens are shown as their number.

    texts: of each run of positions with one cell, in order; escaped here, for it is a user's.
    """
    parts = []
    for (cell, count), text in zip(runs(layout), texts, strict=True):
        name = layout.cells[cell]
        shown = f"[{name}: {count} tokens]" if name.startswith("frame_") else text
        colour = COLOURS[cell % len(COLOURS)]
        parts.append(
            f'<span title="{escape(name)}" style="background:{colour};color:#111">'
            f"{escape(shown)}</span>"
        )
    return f'<pre style="white-space:pre-wrap">{"".join(parts)}</pre>'


def runs(layout: TokenLayout) -> list[tuple[int, int]]:
    """Cell and number of positions of every run of one cell, in order."""
    return [(cell, len(list(run))) for cell, run in itertools.groupby(layout.cell.tolist())]
