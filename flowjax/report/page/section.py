"""What a page is made of: sections of text, tables, pictures, and parts that a reader works."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from flowjax.report.canvas import EMBEDDED
from flowjax.report.table import Table

Kind = Literal["flow", "curves", "sample"]


@dataclass(frozen=True)
class Picture:
    """An image inside the page.

    source: a data URI.
    alt: what it shows, for who does not see it.
    """

    source: str
    alt: str

    @classmethod
    def strip(cls, frames: UInt8[np.ndarray, "frames height width 3"], alt: str) -> "Picture":
        """Frames beside each other."""
        out = io.BytesIO()
        Image.fromarray(np.concatenate(list(frames), axis=1)).save(out, format="JPEG", quality=80)
        data = base64.b64encode(out.getvalue()).decode("ascii")
        return cls(f"data:image/jpeg;base64,{data}", alt)

    @classmethod
    def of(cls, figure: Figure, alt: str) -> "Picture":
        """A figure as an SVG with its text as shapes, so that it looks alike everywhere."""
        out = io.BytesIO()
        with mpl.rc_context(EMBEDDED):
            FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
        data = base64.b64encode(out.getvalue()).decode("ascii")
        return cls(f"data:image/svg+xml;base64,{data}", alt)


@dataclass(frozen=True, eq=False)
class Widget:
    """A part that a reader works, drawn by `static/KIND.js` from data.

    data: JSON values; several widgets may share one object, which the page then holds once.
    """

    kind: Kind
    data: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Folded:
    """Parts that a reader opens."""

    title: str
    parts: Sequence["Part"]


Part = str | Table | Picture | Widget | Folded


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a page under a heading.

    key: of its anchor; sections are in the order of `ORDER`, and others after them.
    lead: what it shows and how to read it, in a few sentences.
    summary: what was found, for the head of the page, a paragraph each.
    """

    key: str
    title: str
    lead: str
    parts: Sequence[Part]
    summary: Sequence[str] = ()


ORDER = ("flow", "pair", "sample", "curves")
LAST = "made"
"""The key of the section about how the page's runs were made."""


def ordered(sections: Sequence[Section]) -> list[Section]:
    """As a reader wants them."""

    def place(section: Section) -> int:
        if section.key in ORDER:
            return ORDER.index(section.key)
        return len(ORDER) + (section.key == LAST)

    return sorted(sections, key=place)
