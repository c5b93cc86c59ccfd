"""Pathways: the edges kept, per layer, written as the knockouts that leave them.

A pathway says in which layers video flows across frames, from video to question, and from question
to the last position; everything else follows (paper, section 5). Two forms exist. `paper` is
literal: text that is neither video, question nor last is never cut, so the `instruction` after the
options goes on carrying video to the answer. In `strict` that text counts as question.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from flowjax.edges import Edge, Knockout, causal_edges, edge_counts, edge_table
from flowjax.errors import FlowjaxError
from flowjax.files import atomically, check_writable, read_json, writing
from flowjax.layout import TokenLayout
from flowjax.masks import DenseMask
from flowjax.models.registry import families

FORMS = ("paper", "strict")
KEPT = ("cross_frame", "video_to_question", "question_to_last", "last_to_last")
"""The fields of a pathway that are sets of layers."""


@dataclass(frozen=True)
class Pathway:
    """Edges kept between token groups, per layer (0-based).

    name: of the pathway, in results.
    form: "paper" or "strict".
    layers: of the decoder that it is for.
    cross_frame, video_to_question, question_to_last: layers in which these edges are kept.
    last_to_last: layers in which `last -> last` is kept. None in the paper, whose answers are one
        token; generated tokens are `last` too, so text of several tokens needs it.

    Raises:
        FlowjaxError: another form, or a layer that does not exist.
    """

    name: str
    form: str
    layers: int
    cross_frame: tuple[int, ...]
    video_to_question: tuple[int, ...]
    question_to_last: tuple[int, ...]
    last_to_last: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the form and the layers."""
        if self.form not in FORMS:
            raise FlowjaxError(f"pathway form {self.form!r}: choose one of {', '.join(FORMS)}")
        if self.layers < 1:
            raise FlowjaxError(f"pathway {self.name!r}: layers is {self.layers}; at least 1")
        for field in KEPT:
            for layer in getattr(self, field):
                if not 0 <= layer < self.layers:
                    raise FlowjaxError(
                        f"pathway {self.name!r}: {field} names layer {layer}; its layers are 0 to "
                        f"{self.layers - 1}"
                    )

    def knockouts(self, layout: TokenLayout) -> tuple[Knockout, ...]:
        """What is cut from a prompt.

        `cross_frame`, `video -> question`, `question -> last` and `last -> last` outside their
        layers; `video -> last` everywhere; `video -> video` after the last `video -> question`
        layer; `question -> question` after the last `question -> last` layer. Edges that the
        prompt does not have, such as those across frames of a single one, are left out.

        Raises:
            FlowjaxError: the prompt has no video, question or last position.
        """
        for group in ("video", "question", "last"):
            layout.cells_of(group)
        question = ["question"]
        if self.form == "strict" and "instruction" in layout.groups:
            question.append("instruction")
        every = range(self.layers)
        video_ends = max(self.video_to_question, default=-1) + 1
        question_ends = max(self.question_to_last, default=-1) + 1

        def between(sources: Iterable[str], targets: Iterable[str]) -> tuple[Edge, ...]:
            return tuple(Edge(*pair) for pair in itertools.product(sources, targets))

        cuts: tuple[tuple[tuple[Edge, ...], set[int]], ...] = (
            ((Edge.CROSS_FRAME,), {*every} - {*self.cross_frame}),
            (between(["video"], question), {*every} - {*self.video_to_question}),
            (between(question, ["last"]), {*every} - {*self.question_to_last}),
            (between(["last"], ["last"]), {*every} - {*self.last_to_last}),
            (between(["video"], ["last"]), {*every}),
            (between(["video"], ["video"]), {*every[video_ends:]}),
            (between(question, question), {*every[question_ends:]}),
        )
        counts = edge_counts(layout)
        knockouts = []
        for edges, layers in cuts:
            there = tuple(edge for edge in edges if counts[edge.cut(layout)].any())
            if there and layers:
                knockouts.append(Knockout(there, tuple(sorted(layers))))
        return tuple(knockouts)

    def scaled(self, layers: int) -> "Pathway":
        """The same pathway for another depth: a layer does what the one at its middle did."""
        if layers == self.layers:
            return self
        middle = [(2 * layer + 1) * self.layers // (2 * layers) for layer in range(layers)]
        kept = {
            field: tuple(layer for layer in range(layers) if middle[layer] in getattr(self, field))
            for field in KEPT
        }
        return Pathway(f"{self.name}, {layers} layers", self.form, layers, **kept)


def _preset(
    name: str,
    layers: int,
    cross_frame: tuple[int, int],
    video_to_question: tuple[int, int],
    question_to_last: tuple[int, int],
) -> Pathway:
    """A pathway from the paper's ranges: layers counted from 1, both ends included."""
    ranges = (cross_frame, video_to_question, question_to_last)
    kept = (tuple(range(first - 1, last)) for first, last in ranges)
    return Pathway(name, "paper", layers, *kept)


PRESETS = MappingProxyType(
    {
        "llava-next-7b": _preset("LLaVA-NeXT-7B-Video-FT", 32, (6, 15), (6, 20), (16, 25)),
        "llava-next-13b": _preset("LLaVA-NeXT-13B-Video-FT", 40, (6, 15), (6, 20), (16, 30)),
        "mini-internvl-4b": _preset("Mini-InternVL-4B-Video-FT", 32, (6, 15), (6, 20), (11, 30)),
        "videollama3-7b": _preset("VideoLLaMA3-7B", 28, (1, 15), (6, 20), (21, 28)),
    }
)
"""The paper's pathways, in its literal form, by short names."""


def preset(name: str, form: str) -> Pathway:
    """One of the paper's pathways by its short name.

    Raises:
        FlowjaxError: an unknown name or form.
    """
    if name not in PRESETS:
        raise FlowjaxError(f"pathway {name!r}: choose from {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name], form=form)


def default_pathway(family: str, layers: int, form: str) -> Pathway:
    """The paper's pathway for a model, scaled to its depth where the paper has none of it.

    Of the family's presets the one nearest in depth; for families that the paper does not study,
    that of LLaVA-NeXT-7B-Video-FT.

    Raises:
        FlowjaxError: an unknown form.
    """
    known = families().get(family)
    names = known.pathways if known and known.pathways else ("llava-next-7b",)
    name = min(names, key=lambda name: abs(PRESETS[name].layers - layers))
    return preset(name, form).scaled(layers)


def write_pathway(path: Path, pathway: Pathway) -> None:
    """Write a pathway as JSON, complete or not at all.

    Raises:
        FlowjaxError: the file cannot be made.
    """
    check_writable(path)
    text = json.dumps(dataclasses.asdict(pathway), indent=1) + "\n"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_pathway(path: Path, layers: int) -> Pathway:
    """Read a pathway that `write_pathway` wrote, or that was written by hand in its form.

    Args:
        path: the file.
        layers: of the decoder that it is to be used on.

    Raises:
        FlowjaxError: no such file, a field that is missing, unknown or of another type, or a
            pathway for another depth.
    """
    fields = read_json(path)
    needed = {field.name for field in dataclasses.fields(Pathway)} - {"last_to_last"}
    for field in sorted(needed - fields.keys()):
        raise FlowjaxError(f"{path}: field {field} is missing")
    for field in sorted(fields.keys() - needed - {"last_to_last"}):
        raise FlowjaxError(f"{path}: field {field} is unknown")
    for field in ("name", "form"):
        if not isinstance(fields[field], str):
            raise FlowjaxError(f"{path}: {field} is {fields[field]!r}; it must be text")
    if type(fields["layers"]) is not int:
        raise FlowjaxError(f"{path}: layers is {fields['layers']!r}; it must be a whole number")
    if fields["layers"] != layers:
        raise FlowjaxError(
            f"{path}: the pathway is for {fields['layers']} layers; the model has {layers}"
        )
    for field in KEPT:
        value = fields.get(field, [])
        if not isinstance(value, list) or any(type(layer) is not int for layer in value):
            raise FlowjaxError(
                f"{path}: {field} is {value!r}; it must be a list of layers, counted from 0"
            )
        fields[field] = tuple(sorted(set(value)))
    try:
        return Pathway(**fields)
    except FlowjaxError as error:
        raise FlowjaxError(f"{path}: {error}") from None


def kept_fraction(
    layout: TokenLayout, knockouts: Iterable[Knockout], *, layers: int, heads: int
) -> float:
    """The share of all causal edges of all layers and heads that the knockouts leave.

    Raises:
        FlowjaxError: see `edge_mask`.
    """
    table = edge_table(layout, knockouts, layers=layers, heads=heads)
    counts = edge_counts(layout)
    return float(np.einsum("lhts,ts->", table, counts) / (counts.sum() * np.prod(table.shape[:2])))


@dataclass(frozen=True)
class RandomEdges:
    """Edges kept at random, the same number in every layer; the same seed, the same edges.

    Each layer loses `cut` edges, drawn without replacement and with equal chances from those
    between positions at or after `first`; it keeps all others. A block of rows is drawn by
    itself, with a counter-based generator, so no table over all positions is ever held.

    length: positions of the prompt.
    first: its first video position.
    """

    length: int
    first: int
    cut: int
    seed: int
    layers: int

    ROWS = 256
    """Rows drawn at a time."""

    def blocks(self, layer: int) -> Iterator[tuple[int, Bool[np.ndarray, "rows n"]]]:
        """The kept edges of one layer in blocks of rows: the first row, and bool [rows, n].

        Causality is included.
        """
        bounds = [*range(self.first, self.length, self.ROWS), self.length]
        if self.first:
            yield 0, np.tri(self.first, self.length, dtype=bool)
        pairs = [
            sum(range(start - self.first + 1, stop - self.first + 1))
            for start, stop in itertools.pairwise(bounds)
        ]
        share = self._generator(layer, 0).multivariate_hypergeometric(pairs, self.cut)
        for block, (start, stop) in enumerate(itertools.pairwise(bounds)):
            kept = np.tri(stop - start, self.length, start, dtype=bool)
            rows, columns = np.nonzero(kept[:, self.first :])
            chosen = self._generator(layer, block + 1).choice(
                pairs[block], share[block], replace=False, shuffle=False
            )
            kept[rows[chosen], self.first + columns[chosen]] = False
            yield start, kept

    def dense(self) -> DenseMask:
        """All layers written out: bool [layers, 1, n, n]."""
        layers = [
            np.concatenate([rows for _, rows in self.blocks(layer)]) for layer in range(self.layers)
        ]
        return DenseMask(jnp.asarray(np.stack(layers)[:, None]))

    def _generator(self, layer: int, stream: int) -> np.random.Generator:
        key = np.array([self.seed, layer], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))


def random_edges(
    layout: TokenLayout, fraction: int | float, *, seed: int, layers: int
) -> RandomEdges:
    """Random edges at a pathway's kept fraction, the control of the paper's section 5.

    In every layer exactly floor((1 - fraction) * n * (n + 1) / 2) of the n * (n + 1) / 2 causal
    edges are cut, none of them into or from the text before the video, as in the paper.

    Args:
        layout: the prompt's token groups.
        fraction: of all causal edges, to keep.
        seed: at least 0.
        layers: of the decoder.

    Raises:
        FlowjaxError: no video, or fewer edges after the text before it than are to be cut.
    """
    if not 0 <= fraction <= 1:
        raise FlowjaxError(f"kept fraction {fraction}: it must be between 0 and 1")
    if seed < 0:
        raise FlowjaxError(f"seed {seed}: it must be at least 0")
    first = int(layout.positions("video")[0])
    after = layout.length - first
    cut = int((1 - fraction) * causal_edges(0, layout.length))
    most = after * (after + 1) // 2
    if cut > most:
        raise FlowjaxError(
            f"kept fraction {fraction}: {cut} edges of a layer would have to be cut, but only "
            f"{most} are not of the text before the video"
        )
    return RandomEdges(layout.length, first, cut, seed, layers)
