"""Effective pathways: answers with only a pathway's edges, beside all edges and random ones."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from flowjax.errors import FlowjaxError
from flowjax.report.canvas import count_of, drawable, head, legend, save_figure, tidy
from flowjax.report.figures import COLOURS
from flowjax.report.statistics import Interval, mean_interval, paired_interval

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
    kept: share of edges kept, mean over samples.
    seeds: of random edges.
    of: what is compared, by its name in `MEASURES`, 0 to 1.
    """

    kind: str
    form: str
    kept: float
    seeds: int
    of: Mapping[str, Compared]

    @property
    def name(self) -> str:
        """For tables and legends."""
        if self.kind == FULL:
            return "all edges"
        if self.kind == PATHWAY:
            return f"pathway, {self.form} form"
        return f"random, as many as {self.form}"


@dataclass(frozen=True)
class AgainstRandom:
    """A pathway minus random edges of the same number, by the names in `MEASURES`, paired."""

    form: str
    of: Mapping[str, Interval]


def conditions(table: pa.Table) -> list[Condition]:
    """All conditions of a run, in the order of its rows.

    Raises:
        FlowjaxError: no rows, or a sample lacks a condition.
    """
    full = {name: _values(table, FULL, "", name) for name in MEASURES}
    found = []
    for kind, form in _kinds(table):
        rows = _rows(table, kind, form)
        of = {name: _values(table, kind, form, name) for name in MEASURES}
        found.append(
            Condition(
                kind,
                form,
                float(rows["kept_fraction"].to_numpy().mean()),
                len(rows["seed"].unique()),
                {
                    name: Compared(mean_interval(values), paired_interval(values, full[name]))
                    for name, values in of.items()
                },
            )
        )
    return found


def against_random(table: pa.Table) -> list[AgainstRandom]:
    """Every form that has random edges to compare with.

    Raises:
        FlowjaxError: see `conditions`.
    """
    found = []
    for form in (form for kind, form in _kinds(table) if kind == RANDOM):
        pairs = {
            name: paired_interval(
                _values(table, PATHWAY, form, name), _values(table, RANDOM, form, name)
            )
            for name in MEASURES
        }
        found.append(AgainstRandom(form, pairs))
    return found


def _kinds(table: pa.Table) -> list[tuple[str, str]]:
    keys = ["kind", "form"]
    rows = table.group_by(keys, use_threads=False).aggregate([]).to_pylist()
    return [(row["kind"], row["form"]) for row in rows]


def _rows(table: pa.Table, kind: str, form: str) -> pa.Table:
    return table.filter((pc.field("kind") == kind) & (pc.field("form") == form))


def _values(table: pa.Table, kind: str, form: str, measure: str) -> Float[np.ndarray, " n"]:
    """One number per sample, in the order of the table's samples; a mean where it has several."""
    rows = _rows(table, kind, form)
    column = rows[MEASURES[measure]].cast(pa.float64())
    means = (
        pa.table({"sample_id": rows["sample_id"], "value": column})
        .group_by("sample_id", use_threads=False)
        .aggregate([("value", "mean")])
    )
    samples = table["sample_id"].unique().to_pylist()
    if means["sample_id"].to_pylist() != samples:
        raise FlowjaxError(f"a sample has no result for {kind} {form}".rstrip())
    return means["value_mean"].to_numpy()


def draw_pathways(table: pa.Table, path: Path) -> Path:
    """Draw accuracy and probabilities over the share of edges kept.

    Raises:
        FlowjaxError: see `conditions`.
    """
    found = conditions(table)
    figure = Figure(figsize=(9.5, 4.2), dpi=200, layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharex=True)
    for axes, measure in zip(panels, MEASURES, strict=True):
        _points(figure, axes, found, measure)
        axes.set_title(textwrap.fill(TITLES[measure], 32), fontsize=8, color="0.3")
    panels[0].set_ylabel("%")
    chance = 100 * float(np.mean(1 / table["options"].to_numpy()))
    panels[0].axhline(chance, color="0.5", linestyle=":", linewidth=1, label="guessing")
    panels[0].set_ylim(0, 100)
    legend(figure, panels[0], columns=2)
    samples = len(table["sample_id"].unique())
    said = count_of(samples).replace("band", "bars")
    seeds = max(at.seeds for at in found if at.kind != FULL)
    if any(at.kind == RANDOM for at in found):
        said += f"; random: mean over {seeds} seeds, drawn a little aside"
    name = table.filter(pc.field("kind") == PATHWAY)["pathway"][0].as_py()
    head(figure, "Only a pathway's edges", f"pathway {drawable(name)}; {said}", table)
    return save_figure(figure, path)


def _points(figure: Figure, axes: Axes, found: list[Condition], measure: str) -> None:
    forms = [at.form for at in found if at.kind == PATHWAY]
    for at in found:
        interval = at.of[measure].mean
        mean, low, high = (100 * end for end in (interval.mean, interval.low, interval.high))
        style = 0 if at.kind == FULL else 1 + forms.index(at.form)
        shape = {FULL: "s", PATHWAY: "o", RANDOM: "x"}[at.kind]
        if at.kind == FULL:
            axes.axhline(mean, color=COLOURS[0], linewidth=0.8, alpha=0.6)
        aside = (6 / 72 if at.kind == RANDOM else 0.0), 0.0  # inches, to see both
        axes.errorbar(
            100 * at.kept,
            mean,
            yerr=[[mean - low], [high - mean]],
            color=COLOURS[style],
            marker=shape,
            markersize=7,
            markeredgewidth=1.8,
            linestyle="none",
            elinewidth=1.2,
            capsize=4,
            clip_on=False,
            alpha=0.65 if at.kind == RANDOM else 1.0,
            label=at.name,
            transform=axes.transData + ScaledTranslation(*aside, figure.dpi_scale_trans),
        )
    # Set by hand: matplotlib takes no account of what is drawn aside.
    cut = max(1.0, 100 - min(100 * at.kept for at in found))
    axes.set_xlim(100 - 1.2 * cut, 100 + 0.15 * cut)
    most = max(100 * at.of[measure].mean.high for at in found)
    axes.set_ylim(0, 1.08 * most or 1)
    axes.set_xlabel("attention edges kept (%)")
    tidy(axes)
