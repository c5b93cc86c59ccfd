"""Logit lens: the words that video positions read as, layer by layer (section 4 of the paper)."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from flowjax.asked.asked import Asked
from flowjax.data.sample import Sample
from flowjax.lens.drawn import drawn_layers, keep_drawn
from flowjax.lens.grid import frame_grids
from flowjax.lens.pictures import Pictures, frames_of, read_pictures
from flowjax.lens.project import Through
from flowjax.lens.read import read_lens
from flowjax.lens.words import KINDS, Words, matching_ids, read_words, words_for
from flowjax.models.loaded import LoadedModel
from flowjax.padding import LENGTH_STEP, pad_prompt, round_up
from flowjax.progress import Advance
from flowjax.report.arrays import by_sample, grouped
from flowjax.report.canvas import caption, count_of, drawable, headline, legend, sheet
from flowjax.report.marks import COLOURS, Line, draw_lines, draw_picture
from flowjax.report.marks import LAYER as LAYER_LABEL
from flowjax.report.page.sample import OnSample
from flowjax.report.sign_flips import adjusted_p, with_p
from flowjax.report.statistics import Interval, mean_interval, paired_interval
from flowjax.report.table import JUDGED, LAYER, Table, judged, tested_note
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import documented
from flowjax.runs.finished import Run
from flowjax.token_text import token_texts
from flowjax_experiments.on_sample import OF_WORDS, about, of_sample, words_read
from flowjax_experiments.probability import check_top_k

Layers = Annotated[
    tuple[int, ...],
    Option("A layer to draw on the frames, from 0. Default: four.", "--layer", decides=False),
]
Drawn = Annotated[
    int, Option("Samples whose frames are drawn: the first so many.", least=0, decides=False)
]
WordIds = Mapping[str, Int[np.ndarray, " ids"]]
"""Token ids that are words of each kind."""

KIND_COLOURS = {"spatial": "#7FD1FF", "temporal": "#FFB347"}
"""On dark pictures."""

ACROSS, SIDE = 4, 4.2
"""Pictures beside each other, and the width of one in inches."""

ROOM, SMALLEST = 45, 3.2
"""Points: width of a grid place that has room for two words; the smallest letters."""


@dataclass(frozen=True)
class Lens(Analysis):
    """The words that video positions read as, at every layer."""

    SCHEMA = documented(
        (
            "layer",
            pa.int32(),
            "the layer that reads the state, 0-based; the last: its output",
        ),
        ("position", pa.int32(), "of the token in the prompt, 0-based"),
        ("frame", pa.int32(), "the frame that it belongs to, 0-based"),
        ("row", pa.int32(), "its place in the frame's grid, 0-based; -1 for text among the frames"),
        ("column", pa.int32(), "its place in the frame's grid, 0-based; -1 for text among frames"),
        ("token_ids", pa.list_(pa.int32()), "the most probable tokens, the first the most"),
        (
            "tokens",
            pa.list_(pa.string()),
            "their texts, blanks and special tokens kept",
        ),
        ("probabilities", pa.list_(pa.float32()), "their probabilities, 0 to 1"),
        ("spatial_rank", pa.int32(), "rank from 0 of the first spatial word among them; -1: none"),
        ("temporal_rank", pa.int32(), "rank from 0 of the first temporal word; -1: none"),
        ("spatial_vocabulary", pa.float64(), "share of the vocabulary that is spatial words"),
        ("temporal_vocabulary", pa.float64(), "share of the vocabulary that is temporal words"),
    )
    ACROSS = True
    ON_SAMPLE = ("overlay", "layers")

    through: Annotated[
        Through, Option("input: the token embedding; output: final norm and output head.")
    ] = "input"
    top_k: Annotated[int, Option("Most probable tokens kept per position.", least=1)] = 10
    words: Annotated[
        Path | None, Option("Words of your own: a file with sections [spatial] and [temporal].")
    ] = None
    layers: Layers = ()
    drawn: Drawn = 1

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Read every video position at every layer in one forward."""
        check_top_k(self.top_k, loaded)
        drawn_layers(self.layers, loaded.config.decoder.layers)
        own = None if self.words is None else read_words(self.words)
        tasks = sorted({sample.task for sample in samples})
        ids = word_ids(loaded, tasks, own)

        def measure(asked: Asked, _: Advance) -> Measured:
            positions = asked.layout.positions("video")
            count = len(positions)
            padded = np.pad(positions, (0, round_up(count, LENGTH_STEP) - count), mode="edge")
            read = read_lens(
                asked.decoder,
                pad_prompt(asked.embedded),
                jnp.asarray(padded, jnp.int32),
                k=self.top_k,
                through=self.through,
            )
            top_ids, probability = (np.asarray(part)[:, :count] for part in read.top)

            def rows() -> Rows:
                words = ids[asked.sample.task]
                return _rows(asked, positions, top_ids, probability, words)

            return Measured(int(read.logits.argmax()), rows)

        listed = {
            task: {kind: sorted(words_for(task, own).of(kind)) for kind in KINDS} for task in tasks
        }
        return Work(measure, {"words": listed})

    def finish(self, run: Run, loaded: LoadedModel, samples: Sequence[Sample]) -> None:
        """Keep the frames that are drawn."""
        keep_drawn(run.path, loaded, samples, run.rows, self.layers, self.drawn)

    @staticmethod
    def report(run: Run) -> Report:
        """How often such words occur, and where."""
        found = word_shares(run.rows)
        titles = [LAYER, "share %", "since the first layer", *JUDGED]
        tables = []
        for kind in KINDS:
            of_kind = [at for at in found if at.kind == kind]
            rows = [
                [
                    str(at.layer),
                    f"{at.share.percent.mean:.1f}",
                    *judged(at.change.percent, "+.1f"),
                ]
                for at in of_kind
            ]
            n = of_kind[0].share.n
            title = f"Video positions with a {kind} word on top, n = {n}"
            note = tested_note(f"the {len(found)} layers and kinds of words")
            tables.append(Table(title, [], titles, rows, note))
        figures = {"words": draw_words(run.rows)}
        for index, pictures in enumerate(read_pictures(run.path)):
            figures[f"layers-{index:02d}"] = draw_layers(run.rows, pictures.sample_id)
            for layer in pictures.layers:
                name = f"overlay-{index:02d}-layer-{layer:02d}"
                figures[name] = draw_overlay(run.rows, pictures, layer)
        return Report(tables, figures)

    @staticmethod
    def on_sample(run: Run, sample_id: str) -> OnSample | None:
        """The words at every place of its frames."""
        rows = of_sample(run.rows, sample_id, *OF_WORDS)
        if rows is None:
            return None
        words, frames = words_read(rows), frames_of(run.path, sample_id)
        return dataclasses.replace(about(rows), words=words, frames=frames)


def word_ids(loaded: LoadedModel, tasks: Iterable[str], own: Words | None) -> dict[str, WordIds]:
    """The token ids that are words of each kind, by task.

    own: the user's words, for every task.
    """
    vocabulary = loaded.config.decoder.vocabulary
    # A special token is no word, whatever it is called.
    texts = loaded.tokenizer.decode_batch([[token] for token in range(vocabulary)])
    return {
        task: {kind: matching_ids(words_for(task, own).of(kind), texts) for kind in KINDS}
        for task in tasks
    }


def _rows(
    asked: Asked,
    positions: Int[np.ndarray, " p"],
    ids: Int[np.ndarray, "layers p k"],
    probability: Float[np.ndarray, "layers p k"],
    words: WordIds,
) -> dict[str, Any]:
    """Columns of one sample, layer by layer."""
    layers, count, k = ids.shape
    size = layers * count
    names = ("position", "frame", "row", "column")
    places = np.tile(_places(asked, positions), (1, layers))
    unique, index = np.unique(ids, return_inverse=True)
    texts = pa.array(token_texts(asked.model.tokenizer, unique.tolist()), pa.string())
    columns: dict[str, Any] = {
        "layer": np.repeat(np.arange(layers), count),
        **dict(zip(names, places, strict=True)),
        "token_ids": _lists(pa.array(ids.ravel(), pa.int32()), k),
        "tokens": _lists(texts.take(pa.array(index.ravel())), k),
        "probabilities": _lists(pa.array(probability.ravel(), pa.float32()), k),
    }
    for kind, members in words.items():
        found = np.isin(ids, members).reshape(size, k)
        columns[f"{kind}_rank"] = np.where(found.any(-1), found.argmax(-1), -1)
        share = len(members) / asked.decoder.config.vocabulary
        columns[f"{kind}_vocabulary"] = pa.repeat(share, size)
    return columns


def _places(asked: Asked, positions: Int[np.ndarray, " p"]) -> Int[np.ndarray, "4 p"]:
    """Position, frame, row and column of every video position."""
    layout = asked.layout
    frame = {cell: index for index, cell in enumerate(layout.cells_of("video"))}
    grids = frame_grids(asked.model.config, asked.prompt, asked.pixel_values.shape)
    place = np.full((2, layout.length), -1)
    place[:, grids] = np.indices(grids.shape)[1:]
    frames = np.array([frame[cell] for cell in layout.cell[positions].tolist()])
    return np.stack([positions, frames, *place[:, positions]])


def _lists(values: pa.Array, k: int) -> pa.Array:
    """Lists of k values each."""
    return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, k, dtype=np.int32), values)


@dataclass(frozen=True)
class WordShare:
    """Share of video positions with a word of a kind among their top tokens, at a layer (from 1).

    change: from the first layer, paired over samples; all are tested together.
    """

    kind: str
    layer: int
    share: Interval
    change: Interval


def word_shares(table: pa.Table) -> list[WordShare]:
    """Every kind and layer.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    layers, shares = _shares(table)
    p = adjusted_p(np.stack([values - values[:, :1] for values in shares.values()], axis=1))
    return [
        WordShare(
            kind,
            layer + 1,
            mean_interval(values[:, index]),
            with_p(paired_interval(values[:, index], values[:, 0]), own[index]),
        )
        for own, (kind, values) in zip(p, shares.items(), strict=True)
        for index, layer in enumerate(layers)
    ]


def _shares(
    table: pa.Table,
) -> tuple[tuple[int, ...], dict[str, Float[np.ndarray, "samples layers"]]]:
    """Layers, and by kind the share of positions, 0 to 1."""
    shares, layers = {}, ()
    for kind in KINDS:
        has = pa.array((table[f"{kind}_rank"].to_numpy() >= 0).astype(np.float64))
        every = table.select(["sample_id", "layer"]).append_column("has", has)
        found = by_sample(every, "has", "layer", several="mean")
        shares[kind], layers = found.values, found.axes[0]
    return layers, shares


def draw_words(table: pa.Table) -> Figure:
    """The shares over layers: all samples, then each task if there are several.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    parts = {"": table}
    tasks = grouped(table, "task")
    if len(tasks) > 1:
        parts = {"all tasks": table, **tasks}
    across = min(3, len(parts))
    figure, panels = sheet(
        len(parts),
        width=max(6.0, 3.4 * across),
        height=1.6 + 2.5 * math.ceil(len(parts) / across),
        across=across,
        share_y=True,
    )
    k = len(table["token_ids"][0])
    for axes, (name, rows) in zip(panels, parts.items(), strict=True):
        layers, shares = _shares(rows)
        lines = [
            Line(f"{kind} words", 100 * values, style)
            for style, (kind, values) in enumerate(shares.items())
        ]
        draw_lines(axes, layers, lines)
        for style, kind in enumerate(shares):
            share = float(rows[f"{kind}_vocabulary"].to_numpy().mean())
            chance = 100 * (1 - (1 - share) ** k)
            axes.axhline(chance, color=COLOURS[style], linestyle=":", linewidth=1)
        caption(axes, f"{name} (n = {len(rows['sample_id'].unique())})" if name else "")
    for axes in panels[::across]:
        axes.set_ylabel("video positions (%)")
    panels[0].set_ylim(bottom=0)  # shared by all
    legend(figure, panels[0])
    title = f"Video positions with such a word among their top {k} tokens"
    samples = len(table["sample_id"].unique())
    headline(figure, title, f"{count_of(samples)}; dotted: tokens drawn at random", table)
    return figure


def draw_overlay(table: pa.Table, pictures: Pictures, layer: int) -> Figure:
    """The top token of every grid place, written on the frames of one sample at one layer.

    Args:
        table: with rows of the sample and layer.
        pictures: of the sample, one per frame cell.
        layer: 0-based.
    """
    of_sample = pc.field("sample_id") == pictures.sample_id
    chosen = table.filter(of_sample & (pc.field("layer") == layer) & (pc.field("row") >= 0))
    rows = chosen.to_pylist()
    down_grid = 1 + max(row["row"] for row in rows)
    across_grid = 1 + max(row["column"] for row in rows)
    frames = pictures.frames
    across = min(ACROSS, len(frames))
    ratio = frames.shape[1] / frames.shape[2]
    height = SIDE * ratio * math.ceil(len(frames) / across) + 0.9
    figure, panels = sheet(len(frames), width=SIDE * across, height=height, across=across, dots=130)
    for index, (axes, frame) in enumerate(zip(panels, frames, strict=True)):
        axes.set_axis_off()
        draw_picture(axes, frame // 2, down_grid, across_grid)
        axes.set_title(f"frame {index + 1}", fontsize=9)
        cell = SIDE * 72 / across_grid
        _write_words(axes, [row for row in rows if row["frame"] == index], cell)
    task = rows[0]["task"]
    about = f"sample {drawable(pictures.sample_id)}" + (f", task {drawable(task)}" if task else "")
    said = (
        f"{about}; blue: a spatial word, orange: a temporal word; a coloured border: such a word "
        f"is among the top {len(rows[0]['tokens'])}"
    )
    title = f"Top token of every video position at layer {layer + 1}, counted from 1"
    headline(figure, title, said, chosen)
    return figure


def draw_layers(table: pa.Table, sample_id: str) -> Figure:
    """Where one sample's positions have words among their top tokens, at every layer at once.

    A row of grids per layer, from below, and a column per frame; a place has the colour of the kind
    that ranks first, paler where it is not on top.
    """
    rows = table.filter((pc.field("sample_id") == sample_id) & (pc.field("row") >= 0))
    layer, frame, row, column = (
        rows[name].to_numpy() for name in ("layer", "frame", "row", "column")
    )
    k = len(rows["token_ids"][0])
    ranks = np.stack([rows[f"{kind}_rank"].to_numpy() for kind in KINDS])
    ranks = np.where(ranks < 0, k, ranks)
    first, rank = ranks.argmin(axis=0), ranks.min(axis=0)
    colours = np.array([to_rgb(KIND_COLOURS[kind]) for kind in KINDS])
    strength = np.select([rank == 0, rank < k], [1.0, 0.45], 0.0)[:, None]
    none = np.full(3, 0.88)
    layers, frames, down, across = (int(at.max()) + 1 for at in (layer, frame, row, column))
    picture = np.ones((layers * (down + 1), frames * (across + 1), 3))
    y = (layers - 1 - layer) * (down + 1) + row
    picture[y, frame * (across + 1) + column] = strength * colours[first] + (1 - strength) * none
    height = min(20.0, 1.5 + max(0.16, 0.035 * down) * layers)
    figure, (axes,) = sheet(width=max(6.0, 1.0 + 0.7 * frames), height=height)
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    middles = np.arange(layers) * (down + 1) + (down - 1) / 2
    axes.set_yticks(middles, [str(layers - index) for index in range(layers)])
    middles = np.arange(frames) * (across + 1) + (across - 1) / 2
    axes.set_xticks(middles, [str(index + 1) for index in range(frames)])
    axes.tick_params(labelsize=7, length=0)
    axes.set_ylabel(LAYER_LABEL)
    axes.set_xlabel("frame from 1")
    for side in axes.spines.values():
        side.set_visible(False)
    said = (
        f"sample {drawable(sample_id)}; blue: a spatial word, orange: a temporal word, pale: not "
        f"on top but among the top {k}"
    )
    headline(figure, "Words at every video position and layer", said, rows)
    return figure


def _write_words(axes: Axes, rows: Sequence[dict[str, Any]], cell: float) -> None:
    """The words of one picture; `cell` is the width of a grid place in points."""
    for row in rows:
        x, y = row["column"], row["row"]
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor="0.45", linewidth=0.4))
        ranks = {kind: row[f"{kind}_rank"] for kind in KINDS if row[f"{kind}_rank"] >= 0}
        if not ranks:
            _write(axes, x + 0.5, y + 0.5, row["tokens"][0], cell, "white")
            continue
        kind = min(ranks, key=lambda kind: ranks[kind])
        colour, rank = KIND_COLOURS[kind], ranks[kind]
        both = rank > 0 and cell > ROOM
        own = "white" if rank else colour
        _write(axes, x + 0.5, y + (0.42 if both else 0.5), row["tokens"][0], cell, own)
        if both:
            _write(axes, x + 0.5, y + 0.68, f"({row['tokens'][rank]})", 0.7 * cell, colour)
        inner = Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, fill=False, edgecolor=colour)
        inner.set_linewidth(min(1.4, cell / 18))
        axes.add_patch(inner)


def _write(axes: Axes, x: float, y: float, token: str, width: float, colour: str) -> None:
    """A token in a place `width` points wide, shortened where it does not fit."""
    text = drawable(token.strip()) or "\N{OPEN BOX}"
    size = min(11.0, 1.5 * width / max(4, len(text)))
    if size < SMALLEST:
        size = SMALLEST
        text = text[: max(1, int(1.5 * width / size) - 1)] + "\N{HORIZONTAL ELLIPSIS}"
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color=colour, parse_math=False)
