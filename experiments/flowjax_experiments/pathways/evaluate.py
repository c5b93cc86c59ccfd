"""Effective pathways: does the answer survive with only a pathway's edges (section 5)."""

import dataclasses
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from flowjax.asked.asked import Asked, true_token
from flowjax.data.sample import Sample
from flowjax.edges import causal_edges
from flowjax.errors import FlowjaxError
from flowjax.lens.read import read_logits
from flowjax.models.loaded import LoadedModel
from flowjax.padding import pad_prompt, padded_dense, padded_mask
from flowjax.pathway import (
    FORMS,
    PRESETS,
    Pathway,
    default_pathway,
    kept_fraction,
    preset,
    random_edges,
    read_pathway,
)
from flowjax.progress import Advance
from flowjax.report.arrays import by_sample, distinct
from flowjax.report.canvas import (
    INTERVAL,
    SCORE,
    caption,
    count_of,
    drawable,
    headline,
    legend,
    sheet,
)
from flowjax.report.marks import COLOURS, Points, draw_points
from flowjax.report.sign_flips import adjusted_p, with_p
from flowjax.report.statistics import Interval, mean_interval, paired_interval
from flowjax.report.table import BOOTSTRAP, JUDGED, SHARES, Table, judged, mean, tested_note
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import documented
from flowjax.runs.finished import Run

FULL, PATHWAY, RANDOM = "full", "pathway", "random"
"""Kinds of conditions."""

MEASURES = {
    "accuracy": "new_correct",
    "true_probability": "true_probability",
    "base_probability": "base_probability",
}
"""Columns of what is compared, by name."""

TITLES = {
    "accuracy": "Questions answered correctly",
    "true_probability": "Probability of the true option",
    "base_probability": "Probability of the answer given with all edges",
}
Seeds = Annotated[int, Option("How often random edges are drawn.", least=0)]


@dataclass(frozen=True)
class Evaluate(Analysis):
    """Answers with only a pathway's edges, beside all edges and as many random ones."""

    SCHEMA = documented(
        ("options", pa.int32(), "how many options its question has"),
        ("kind", pa.string(), "which edges are kept: full, pathway or random"),
        ("pathway", pa.string(), "the pathway's name"),
        ("form", pa.string(), "paper or strict: of the pathway that is kept, or has as many edges"),
        ("seed", pa.int32(), "of random edges; -1 otherwise"),
        ("kept_fraction", pa.float64(), "edges kept of all causal edges, 0 to 1"),
        ("kept_edges", pa.int64(), "how many, in one head of every layer"),
        ("all_edges", pa.int64(), "all causal edges there"),
        ("new_answer", pa.string(), "most probable next token with these edges"),
        ("new_id", pa.int32(), "its token id"),
        ("new_correct", pa.bool_(), "whether it is the true option's letter"),
        ("true_probability", pa.float64(), "of the true option's letter, 0 to 1"),
        ("base_probability", pa.float64(), "of the base answer, 0 to 1"),
    )
    ACROSS = True
    CUTS = True

    pathway: Annotated[
        str | None,
        Option(
            "A preset's name, or a JSON file. Default: the paper's for this model.", decides=False
        ),
    ] = None
    form: Annotated[
        Literal["paper", "strict", "both"] | None,
        Option("paper, strict or both. Default: both, but a file's own form.", decides=False),
    ] = None
    seeds: Seeds = 3
    random_share: Annotated[
        float | None,
        Option("Share of edges that random ones keep, 0 to 1. Default: as many as the pathway."),
    ] = None

    def pathways(self, family: str, layers: int) -> tuple[Pathway, ...]:
        """The pathway in each form asked for, for a model of some family and depth.

        Presets are scaled to the model's depth.

        Raises:
            FlowjaxError: an unknown name, or a file that is not a pathway of this depth.
        """
        forms = FORMS if self.form in (None, "both") else (self.form,)
        if self.pathway is None:
            return tuple(default_pathway(family, layers, form) for form in forms)
        if self.pathway in PRESETS:
            return tuple(preset(self.pathway, form).scaled(layers) for form in forms)
        path = Path(self.pathway)
        if not path.is_file():
            raise FlowjaxError(
                f"--pathway {self.pathway!r}: give a JSON file or one of {', '.join(PRESETS)}"
            )
        own = read_pathway(path, layers)
        return tuple(
            dataclasses.replace(own, form=form)
            for form in ((own.form,) if self.form is None else forms)
        )

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """See `measuring`."""
        pathways = self.pathways(loaded.config.family, loaded.config.decoder.layers)
        settings = {"pathways": [dataclasses.asdict(pathway) for pathway in pathways]}
        if self.random_share is not None and not 0 <= self.random_share <= 1:
            raise FlowjaxError(f"--random-share {self.random_share}: give 0 to 1")
        return Work(measuring(pathways, self.seeds, share=self.random_share), settings)

    @staticmethod
    def report(run: Run) -> Report:
        """Accuracy and probabilities of every condition."""
        found = conditions(run.rows)
        parts: list[str | Table] = []
        if any(at.kind == RANDOM for at in found):
            seeds = max(at.seeds for at in found)
            parts.append(f"Random edges: the mean over {seeds} seeds of every sample.")
        parts += [_changes(title, found, measure) for measure, title in TITLES.items()]
        counts = [[at.name, f"{100 * at.kept:.1f}", f"{at.edges:,.0f}"] for at in found]
        said = "Edges kept in one head of every layer, mean over samples"
        parts.append(Table(said, ["edges"], ["kept %", "edges"], counts))
        against = [
            [TITLES[measure], pair.form, *judged(interval.percent, "+.2f")]
            for pair in against_random(run.rows)
            for measure, interval in pair.of.items()
        ]
        if against:
            columns = ["points", *JUDGED]
            note = tested_note(f"the {len(against)} of this table")
            parts.append(
                Table("Pathway minus random edges", ["of", "form"], columns, against, note)
            )
        return Report(parts, {"pathways": draw_pathways(run.rows)})


@dataclass(frozen=True, eq=False)
class Answered:
    """Logits at the last position, with the edges of one condition."""

    kind: str
    pathway: str
    form: str
    seed: int
    kept: float
    logits: Float[jax.Array, " vocabulary"]


def answers(
    asked: Asked, pathways: Sequence[Pathway], seeds: int, *, share: float | None = None
) -> Iterator[Answered]:
    """All edges first; then every pathway, each followed by random edges of the same number.

    share: of edges that random ones keep; they are drawn once then, after the pathways.

    Raises:
        FlowjaxError: see `Pathway.knockouts` and `random_edges`.
    """
    decoder, layout = asked.decoder, asked.layout
    config = decoder.config
    prompt = pad_prompt(asked.embedded)
    every = padded_mask(layout, (), config)
    yield Answered(FULL, pathways[0].name, "", -1, 1.0, read_logits(decoder, prompt, every))
    for pathway in pathways:
        cut = pathway.knockouts(layout)
        kept = kept_fraction(layout, cut, layers=config.layers, heads=config.heads)
        logits = read_logits(decoder, prompt, padded_mask(layout, cut, config))
        yield Answered(PATHWAY, pathway.name, pathway.form, -1, kept, logits)
        if share is None:
            yield from _random(asked, kept, seeds, pathway.name, pathway.form)
    if share is not None:
        yield from _random(asked, share, seeds, pathways[0].name, "")


def _random(asked: Asked, share: float, seeds: int, pathway: str, form: str) -> Iterator[Answered]:
    """With random edges of a share of all; form: of the pathway that has as many."""
    layout, config = asked.layout, asked.decoder.config
    for seed in range(seeds):
        drawn = random_edges(layout, share, seed=seed, layers=config.layers)
        logits = read_logits(asked.decoder, pad_prompt(asked.embedded), padded_dense(drawn.dense()))
        kept = 1 - drawn.cut / causal_edges(0, layout.length)
        yield Answered(RANDOM, pathway, form, seed, kept, logits)


def measuring(
    pathways: Sequence[Pathway], seeds: int, *, share: float | None = None
) -> Callable[[Asked, Advance], Measured]:
    """Measures a sample: a row for every condition of `answers`."""
    drawn = len(pathways) * seeds if share is None else seeds

    def measure(asked: Asked, advance: Advance) -> Measured:
        conditions = answers(asked, pathways, seeds, share=share)
        edges = asked.decoder.config.layers * causal_edges(0, asked.layout.length)
        full = next(conditions)
        base_id = int(full.logits.argmax())

        def row(answered: Answered) -> dict[str, Any]:
            probability = np.asarray(jax.nn.softmax(answered.logits), np.float64)
            new_id = int(probability.argmax())
            advance(1 / (1 + len(pathways) + drawn))
            return {
                "options": len(asked.question.options),
                "kind": answered.kind,
                "pathway": answered.pathway,
                "form": answered.form,
                "seed": answered.seed,
                "kept_fraction": answered.kept,
                "kept_edges": round(edges * answered.kept),
                "all_edges": edges,
                "new_answer": asked.text_of(new_id),
                "new_id": new_id,
                "new_correct": asked.is_correct(new_id),
                "true_probability": probability[true_token(asked)],
                "base_probability": probability[base_id],
            }

        def rows() -> Rows:
            return [row(full), *map(row, conditions)]

        return Measured(base_id, rows)

    return measure


@dataclass(frozen=True)
class Compared:
    """A mean over samples, and how it differs from that with all edges, paired over samples."""

    mean: Interval
    change: Interval


@dataclass(frozen=True)
class Condition:
    """What a model does with some of its edges; random edges: mean over their seeds.

    kind: `FULL`, `PATHWAY` or `RANDOM`; form: "paper" or "strict", of the pathway or of the one
        whose number of edges random ones have; empty for all edges.
    kept, edges: share and number of edges kept, mean over samples.
    seeds: of random edges.
    of: what is compared, by its name in `MEASURES`, 0 to 1.
    """

    kind: str
    form: str
    kept: float
    edges: float
    seeds: int
    of: Mapping[str, Compared]

    @property
    def name(self) -> str:
        """For tables and legends."""
        if self.kind == FULL:
            return "all edges"
        if self.kind == PATHWAY:
            return f"pathway, {self.form} form"
        return f"random, as many as {self.form}" if self.form else "random"


@dataclass(frozen=True)
class AgainstRandom:
    """A pathway minus random edges of the same number, by the names in `MEASURES`, paired."""

    form: str
    of: Mapping[str, Interval]


def conditions(table: pa.Table) -> list[Condition]:
    """All conditions of a run, in the order of its rows; all changes are tested together.

    Raises:
        FlowjaxError: no rows, or a sample lacks a condition.
    """
    full = {name: _values(table, FULL, "", name) for name in MEASURES}
    every = distinct(table, "kind", "form")
    of = [{name: _values(table, kind, form, name) for name in MEASURES} for kind, form in every]
    p = adjusted_p(np.stack([_differences(values, full) for values in of], axis=1))
    found = []
    for (kind, form), values, own in zip(every, of, p, strict=True):
        rows = _rows(table, kind, form)
        compared = {
            name: Compared(
                mean_interval(values[name]),
                with_p(paired_interval(values[name], full[name]), own[index]),
            )
            for index, name in enumerate(MEASURES)
        }
        kept = float(rows["kept_fraction"].to_numpy().mean())
        edges = float(rows["kept_edges"].to_numpy().mean())
        found.append(Condition(kind, form, kept, edges, len(rows["seed"].unique()), compared))
    return found


def against_random(table: pa.Table) -> list[AgainstRandom]:
    """Every form beside its random edges, where there are any; all differences are tested together.

    Raises:
        FlowjaxError: see `conditions`.
    """
    there = distinct(table, "kind", "form")
    if not any(kind == RANDOM for kind, _ in there):
        return []
    forms = [form for kind, form in there if kind == PATHWAY]
    pairs = []
    for form in forms:
        random = form if (RANDOM, form) in there else ""
        of = (PATHWAY, form), (RANDOM, random)
        pairs.append([{m: _values(table, *at, m) for m in MEASURES} for at in of])
    p = adjusted_p(np.stack([_differences(own, random) for own, random in pairs], axis=1))
    return [
        AgainstRandom(
            form,
            {
                name: with_p(paired_interval(own[name], random[name]), of_form[index])
                for index, name in enumerate(MEASURES)
            },
        )
        for form, (own, random), of_form in zip(forms, pairs, p, strict=True)
    ]


Values = Float[np.ndarray, " n"] | Bool[np.ndarray, " n"]


def _differences(
    new: Mapping[str, Values], base: Mapping[str, Values]
) -> Float[np.ndarray, "n measures"]:
    """Of every measure, a row per sample."""
    return np.stack([np.subtract(new[m], base[m], dtype=np.float64) for m in MEASURES], axis=1)


def _rows(table: pa.Table, kind: str, form: str) -> pa.Table:
    return table.filter((pc.field("kind") == kind) & (pc.field("form") == form))


def _values(table: pa.Table, kind: str, form: str, measure: str) -> Values:
    """One number per sample of the table, by its id; of random edges, over seeds.

    Whether one answer per sample is right is a boolean.
    """
    found = by_sample(_rows(table, kind, form), MEASURES[measure], several="mean")
    missing = sorted(set(table["sample_id"].to_pylist()).difference(found.samples))
    if missing:
        raise FlowjaxError(f"sample {missing[0]!r} has no result for {kind} {form}".rstrip())
    if measure == "accuracy" and kind != RANDOM:
        return found.values.astype(bool)
    return found.values


def _changes(title: str, found: Sequence[Condition], measure: str) -> Table:
    rows = []
    for at in found:
        of = at.of[measure]
        cells = [at.name, f"{100 * at.kept:.1f}", *mean(of.mean.percent, ".2f")]
        rows.append(cells + (judged(of.change.percent, "+.2f") if at.kind != FULL else []))
    columns = ["kept %", "mean", "95% interval", "change", *JUDGED]
    title = f"{title} (%), n = {found[0].of[measure].mean.n}"
    tested = (len(found) - 1) * len(MEASURES)
    kind = f"{SHARES}, of random edges {BOOTSTRAP}" if measure == "accuracy" else BOOTSTRAP
    note = tested_note(f"the {tested} changes of accuracy and probabilities", kind)
    return Table(title, ["edges"], columns, rows, note)


def draw_pathways(table: pa.Table) -> Figure:
    """Accuracy and probabilities over the share of edges kept.

    Raises:
        FlowjaxError: see `conditions`.
    """
    found = conditions(table)
    figure, panels = sheet(len(MEASURES), width=9.5)
    for axes, measure in zip(panels, MEASURES, strict=True):
        _points(figure, axes, found, measure)
        caption(axes, textwrap.shorten(TITLES[measure], 32, placeholder="..."))
    panels[0].set_ylabel("%")
    chance = 100 * float(np.mean(1 / table["options"].to_numpy()))
    panels[0].axhline(chance, color="0.5", linestyle=":", linewidth=1, label="guessing")
    panels[0].set_ylim(0, 100)
    legend(figure, panels[0])
    scored = f"of right answers, but of random edges, {SCORE}"
    said = count_of(len(table["sample_id"].unique()), f"bars: {INTERVAL}", f"bars {scored}")
    if any(at.kind == RANDOM for at in found):
        seeds = max(at.seeds for at in found)
        said += f"; random: mean over {seeds} seeds, drawn a little aside"
    name = table.filter(pc.field("kind") == PATHWAY)["pathway"][0].as_py()
    headline(figure, "Only a pathway's edges", f"pathway {drawable(name)}; {said}", table)
    return figure


def _points(figure: Figure, axes: Axes, found: list[Condition], measure: str) -> None:
    forms = [at.form for at in found if at.kind == PATHWAY]
    for at in found:
        interval = at.of[measure].mean.percent
        place = forms.index(at.form) if at.form in forms else len(forms)
        colour = COLOURS[0 if at.kind == FULL else 1 + place]
        if at.kind == FULL:
            axes.axhline(interval.mean, color=colour, linewidth=0.8, alpha=0.6)
        aside = (6 / 72 if at.kind == RANDOM else 0.0), 0.0  # inches, to see both
        shape = {FULL: "s", PATHWAY: "o", RANDOM: "x"}[at.kind]
        draw_points(
            axes,
            Points(at.name, [100 * at.kept], [interval], colour, shape),
            markersize=7,
            markeredgewidth=1.8,
            capsize=4,
            clip_on=False,
            alpha=0.65 if at.kind == RANDOM else 1.0,
            transform=axes.transData + ScaledTranslation(*aside, figure.dpi_scale_trans),
        )
    # Set by hand: matplotlib takes no account of what is drawn aside.
    cut = max(1.0, 100 - min(100 * at.kept for at in found))
    axes.set_xlim(100 - 1.2 * cut, 100 + 0.15 * cut)
    means = [at.of[measure].mean.percent for at in found]
    most = np.nanmax([[at.mean, at.high] for at in means])
    axes.set_ylim(0, 1.08 * most or 1)
    axes.set_xlabel("attention edges kept (%)")
