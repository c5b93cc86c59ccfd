"""From sections to one HTML file that needs no network, and opens from disk.

Everything that comes from data is escaped by jinja2 or stays JSON, which the page's scripts write
as text only. A policy in the page lets no script run but its own, and nothing be fetched.
"""

import base64
import functools
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from flowjax.files import atomically, check_writable, writing
from flowjax.report.page.section import Folded, Picture, Section, Widget, ordered
from flowjax.report.table import Table
from flowjax.version import __version__

SCRIPTS = ("common.js", "flow.js", "curves.js", "sample.js", "start.js")
HEIGHT = 900
"""Pixels of a page inside a notebook."""


@dataclass(frozen=True)
class Page:
    """A report.

    html: the whole file.
    """

    html: str

    def save(self, path: str | Path) -> Path:
        """Write the file, complete or not at all.

        Raises:
            FlowjaxError: it cannot be written.
        """
        path = Path(path)
        check_writable(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomically(path, lambda to: to.write_text(self.html, encoding="utf-8"))
        return path

    def __repr__(self) -> str:
        """Its size; the whole would fill a terminal."""
        return f"Page({len(self.html.encode()) / 1e6:.1f} MB of HTML; .save(path) writes it)"

    def _repr_html_(self) -> str:
        """Inside a notebook, in a frame of its own that can reach nothing around it."""
        return (
            f'<iframe sandbox="allow-scripts" title="flowjax report" style="width:100%;'
            f'height:{HEIGHT}px;border:1px solid #ccc" srcdoc="{html.escape(self.html)}"></iframe>'
        )


def make_page(title: str, sections: Sequence[Section], notes: Sequence[str] = ()) -> Page:
    """A page of some sections, headed by their summaries.

    Args:
        title: of the page.
        sections: in any order; see `ordered`.
        notes: what to know when reading it, each a paragraph.
    """
    held = _Held()
    script = "\n".join(map(_static, SCRIPTS))
    text = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            title=title,
            summary=[text for section in ordered(sections) for text in section.summary],
            notes=notes,
            sections=ordered(sections),
            held=held,
            style=Markup(_static("page.css")),
            script=Markup(script),
            script_hash=_hash(script),
            version=__version__,
            kind_of=_kind_of,
        )
    )
    # A file name may hold what no file of UTF-8 does.
    return Page(text.encode("utf-8", "replace").decode("utf-8"))


class _Held:
    """Data of widgets, each object once."""

    def __init__(self) -> None:
        self.found: dict[int, tuple[str, Mapping[str, Any]]] = {}

    def id_of(self, data: Mapping[str, Any]) -> str:
        """The id of the element that holds the data."""
        name, _ = self.found.setdefault(id(data), (f"data-{len(self.found)}", data))
        return name

    @property
    def elements(self) -> list[tuple[str, Markup]]:
        """Id and JSON of all that was asked for."""
        return [(name, _json(data)) for name, data in self.found.values()]


def _json(data: Mapping[str, Any]) -> Markup:
    """JSON that ends no element, whatever it holds."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text.encode("utf-8", "replace").decode("utf-8"))


def _kind_of(part: object) -> str:
    kinds = {str: "text", Table: "table", Picture: "picture", Widget: "widget", Folded: "folded"}
    return kinds[type(part)]


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _static(name: str) -> str:
    return (resources.files("flowjax.report.page") / "static" / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    return Environment(
        autoescape=True,
        loader=FunctionLoader(_static),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
