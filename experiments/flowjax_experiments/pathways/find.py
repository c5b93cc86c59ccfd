"""Pathway discovery: from a sweep's results to the layers in which edges are worth keeping.

On one half of the samples, the mean change at every window says for cross_frame, video->question
and question->last from which layer to which it is at least a threshold. Every threshold gives a
pathway; all are run on all samples, beside the paper's hand-set layers and random edges. One is
chosen on the same half, and what is reported of it comes from the other.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from matplotlib.figure import Figure

from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.models.loaded import LoadedModel
from flowjax.pathway import Pathway, default_pathway, read_pathway, write_pathway
from flowjax.report.arrays import by_sample, grouped
from flowjax.report.canvas import FROM, INTERVAL, SCORE, headline, legend, sheet
from flowjax.report.marks import COLOURS, Points, draw_points
from flowjax.report.sign_flips import adjusted
from flowjax.report.statistics import Interval, mean_interval, paired_interval
from flowjax.report.table import (
    BOOTSTRAP,
    JUDGED,
    PAIRED,
    Table,
    ends,
    judged,
    tested_note,
    verdict,
)
from flowjax.runs.analysis import Analysis, Chosen, Option, Report, Work
from flowjax.runs.finished import Run, read_run
from flowjax.runs.halves import halves
from flowjax.runs.run import analysis_of
from flowjax.runs.settings import model_settings
from flowjax_experiments.pathways.evaluate import FULL, PATHWAY, RANDOM, Seeds, measuring
from flowjax_experiments.pathways.evaluate import Evaluate as EvaluatePathways
from flowjax_experiments.sweep import Sweep

THRESHOLDS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
"""Falls of the answer's probability in percent."""

SWEPT = {
    "cross_frame": "cross_frame",
    "video_to_question": "video->question",
    "question_to_last": "question->last",
}
"""Fields of a pathway, and the edges of a sweep that decide them."""

FOUND = "found.json"


@dataclass(frozen=True)
class Find(Analysis):
    """Find a pathway in a sweep's results on half of the samples; judge it on the other half."""

    SCHEMA = EvaluatePathways.SCHEMA
    ACROSS = True
    CUTS = True

    sweep: Annotated[Path, Option("Folder of a finished sweep of the model.", decides=False)]
    threshold: Annotated[
        tuple[float, ...],
        Option("Fall of the probability in percent. Default: seven, from 0 to 40.", least=0),
    ] = ()
    form: Annotated[Literal["paper", "strict"], Option("paper or strict.")] = "strict"
    tolerance: Annotated[
        float, Option("Accuracy that the chosen pathway may lose, 0 to 1.", least=0, most=1)
    ] = 0.02
    seeds: Seeds = 1

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Find a pathway for every threshold; measure all of them."""
        sweep = read_run(self.sweep)
        if analysis_of(self.sweep) != Sweep.name():
            raise FlowjaxError(f"--sweep {self.sweep}: not a run of `flowjax sweep`")
        if sweep.settings.get("checkpoint") != model_settings(loaded)["checkpoint"]:
            name = sweep.settings.get("model")
            raise FlowjaxError(
                f"--sweep {self.sweep}: a sweep of another model, {name!r}; sweep this one"
            )
        first, _ = halves(sample.sample_id for sample in samples)
        change = mean_curves(sweep.rows, first, loaded.config.decoder.layers)
        found = candidates(change, self.threshold or THRESHOLDS, self.form)
        hand = default_pathway(loaded.config.family, loaded.config.decoder.layers, self.form)
        settings = {
            "found": [dataclasses.asdict(pathway) for pathway in found],
            "hand-set": dataclasses.asdict(hand),
            "first half": sorted(first),
        }
        return Work(measuring([*found, hand], self.seeds), settings)

    def finish(self, run: Run, loaded: LoadedModel, samples: Sequence[Sample]) -> None:
        """Choose a pathway on the first half, and write it."""
        found = run.settings["found"]
        on_first = frontier(run.rows, run.settings["first half"])
        name = best(on_first, [pathway["name"] for pathway in found], self.tolerance)
        (chosen,) = (pathway for pathway in found if pathway["name"] == name)
        fields: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in chosen.items()
        }
        write_pathway(run.path / FOUND, Pathway(**fields))

    @staticmethod
    def report(run: Run) -> Report:
        """Every pathway on the half that judges."""
        settings, judged_on = run.settings, Halves.of(run)
        chosen, second = judged_on.chosen, judged_on.second
        layers = {
            pathway["name"]: ", ".join(_range(pathway[field]) for field in SWEPT)
            for pathway in (*settings["found"], settings["hand-set"])
        }
        rows = [
            [
                f"{point.name} *" if point.name == chosen.name else point.name,
                layers[point.name],
                f"{100 * point.kept:.1f}",
                f"{point.accuracy.mean:.3f}",
                f"{point.change.mean:+.3f}",
                *judged(point.change, "+.2f")[1:],
                "" if point.random is None else f"{point.random.mean:.3f}",
            ]
            for point in second.points
        ]
        kept = ", ".join(edge.replace("_", " ") for edge in SWEPT.values())
        table = Table(
            f"Pathways, {chosen.form} form, on the half they were not found on",
            ["pathway", f"layers kept (from 1): {kept}"],
            ["kept %", "accuracy", "change", *JUDGED, "random"],
            rows,
            tested_note(
                "all changes and differences from random edges",
                f"{PAIRED}, of chosen - random edges {BOOTSTRAP}",
            ),
        )
        parts = [
            f"{judged_on.first.full.n} samples to find on, {second.full.n} to judge on; accuracy "
            f"there with all edges {second.full.mean:.3f} {ends(second.full, '.3f')}",
            table,
            f"* chosen: loses at most {settings['tolerance']:g} accuracy on the other half, with "
            "the\n  fewest edges; where none does, the one that loses least",
        ]
        gap = second.point(chosen.name).gap
        if gap is not None:
            said = f"chosen - random edges: {gap.mean:+.3f} {ends(gap, '+.3f')}"
            if not math.isnan(gap.p):
                said += "; adjusted p {}, effect: {}".format(*verdict(gap))
            parts.append(said)
        names = [pathway["name"] for pathway in settings["found"]]
        figure = draw_frontier(run.rows, second, names, chosen.name)
        return Report(parts, {"frontier": figure}, {"pathway": run.path / FOUND})


def _range(layers: Sequence[int]) -> str:
    """Layers counted from 1."""
    if not layers:
        return "none"
    return f"{layers[0] + 1}-{layers[-1] + 1}" if len(layers) > 1 else str(layers[0] + 1)


def mean_curves(
    sweep: pa.Table, samples: Collection[str], layers: int
) -> dict[str, Float[np.ndarray, " l"]]:
    """Mean relative change, in percent, of each edge of `SWEPT` at every layer.

    Args:
        sweep: rows of a sweep.
        samples: those to average over.
        layers: of the model.

    Raises:
        FlowjaxError: an edge that was not swept, or not around every layer, windows of another
            style than `center`, or no rows of these samples.
    """
    rows = sweep.filter((pc.field("style") == "center") & (pc.field("head") == -1))
    rows = rows.filter(pc.field("sample_id").isin(sorted(samples)))
    if not rows.num_rows:
        raise FlowjaxError(
            "the sweep has no rows of these samples, in all heads and windows of style center"
        )
    found = {}
    for field, edge in SWEPT.items():
        of_edge = rows.filter(pc.field("edge") == edge)
        if not of_edge.num_rows:
            raise FlowjaxError(
                f"the sweep has no edge {edge!r}; run it with --edges cross-frame --edges vql-to-ql"
            )
        centres = of_edge["centre"].unique().to_pylist()
        if sorted(centres) != list(range(layers)):
            raise FlowjaxError(
                f"the sweep cuts {edge!r} in windows around {len(centres)} of {layers} layers; "
                "a pathway is found in one of every layer, without --centres"
            )
        # An edge may also be there as one of the user's own, with the same rows.
        found[field] = by_sample(of_edge, "relative_change", "centre", several="mean").values.mean(
            axis=0
        )
    return found


def span(change: Float[np.ndarray, " l"], threshold: float) -> tuple[int, ...]:
    """The layers (0-based) from the first to the last where a probability falls enough.

    Args:
        change: in percent, per layer.
        threshold: of the fall, in percent; a fall of 0 never counts.
    """
    falls = np.flatnonzero((change < 0) & (change <= -threshold))
    return tuple(range(int(falls[0]), int(falls[-1]) + 1)) if len(falls) else ()


def candidates(
    change: Mapping[str, Float[np.ndarray, " l"]], thresholds: Sequence[float], form: str
) -> tuple[Pathway, ...]:
    """A pathway for each threshold; thresholds that give the same layers share the first's name.

    Raises:
        FlowjaxError: an unknown form.
    """
    layers = len(next(iter(change.values())))
    out: dict[tuple, Pathway] = {}
    for threshold in sorted(thresholds):
        ranges = {field: span(change[field], threshold) for field in SWEPT}
        name = f"found at {threshold:g}%"
        out.setdefault(tuple(ranges.values()), Pathway(name, form, layers, **ranges))
    return tuple(out.values())


@dataclass(frozen=True)
class Point:
    """A pathway on some samples.

    kept: share of edges, mean over samples.
    accuracy: of its answers; change: from that with all edges, paired.
    random: accuracy with as many random edges, mean over seeds; None where none were drawn.
    gap: accuracy - random, paired. Changes and gaps of all pathways are tested together.
    """

    name: str
    kept: float
    accuracy: Interval
    change: Interval
    random: Interval | None
    gap: Interval | None


@dataclass(frozen=True)
class Frontier:
    """Every pathway on some samples; full: accuracy with all edges."""

    full: Interval
    points: tuple[Point, ...]

    def point(self, name: str) -> Point:
        """Of one pathway."""
        return next(point for point in self.points if point.name == name)


@dataclass(frozen=True)
class Halves:
    """A run's chosen pathway, and every pathway on the half they were found on and the other."""

    chosen: Pathway
    first: Frontier
    second: Frontier

    @classmethod
    def of(cls, run: Run) -> "Halves":
        """From a run's folder.

        Raises:
            FlowjaxError: a folder without the pathway, or rows of one half alone.
        """
        first = frozenset(run.settings["first half"])
        second = frozenset(run.rows["sample_id"].to_pylist()) - first
        chosen = read_pathway(run.path / FOUND, run.settings["hand-set"]["layers"])
        return cls(chosen, frontier(run.rows, first), frontier(run.rows, second))


def frontier(table: pa.Table, samples: Collection[str]) -> Frontier:
    """Accuracy and kept edges of every pathway on some of a run's samples.

    Raises:
        FlowjaxError: none of the samples is there.
    """
    rows = table.filter(pc.field("sample_id").isin(sorted(samples)))
    if not rows.num_rows:
        raise FlowjaxError("the results have no rows of this half of the samples")
    kinds = grouped(rows, "kind")
    names = {kind: grouped(kinds[kind], "pathway") for kind in (PATHWAY, RANDOM) if kind in kinds}

    def right(some: pa.Table) -> Float[np.ndarray, " n"]:
        return by_sample(some, "new_correct", several="mean").values

    full = right(kinds[FULL]).astype(bool)
    own = {name: right(some).astype(bool) for name, some in names[PATHWAY].items()}
    random = {name: right(some) for name, some in names.get(RANDOM, {}).items()}
    changes = [paired_interval(values, full) for values in own.values()]
    gaps = [paired_interval(own[name], values) for name, values in random.items()]
    differences = [own[name].astype(np.float64) - full for name in own]
    differences += [own[name] - values for name, values in random.items()]
    both = iter(adjusted([*changes, *gaps], np.stack(differences, axis=1)))
    change = dict(zip(own, both, strict=False))
    gap = dict(zip(random, both, strict=True))
    points = [
        Point(
            name,
            float(some["kept_fraction"].to_numpy().mean()),
            mean_interval(own[name]),
            change[name],
            mean_interval(random[name]) if name in random else None,
            gap.get(name),
        )
        for name, some in names[PATHWAY].items()
    ]
    return Frontier(mean_interval(full), tuple(points))


def best(found: Frontier, names: Collection[str], tolerance: float) -> str:
    """The pathway with the fewest edges among those that lose at most `tolerance` accuracy.

    If all lose more, the one that loses least, and of equals the one with the fewest edges.

    Args:
        found: on the half that pathways are found on.
        names: to choose from.
        tolerance: 0 to 1.
    """
    points = [point for point in found.points if point.name in names]
    enough = [point for point in points if -point.change.mean <= tolerance + 1e-9]
    if enough:
        return min(enough, key=lambda point: (point.kept, -point.accuracy.mean)).name
    return max(points, key=lambda point: (point.accuracy.mean, -point.kept)).name


def draw_frontier(
    table: pa.Table, judged_on: Frontier, found: Collection[str], chosen: str
) -> Figure:
    """Accuracy over kept edges.

    Args:
        table: the run's rows.
        judged_on: every pathway on the half that nothing was found on.
        found: names of the pathways found; others are hand-set.
        chosen: the one written to `found.json`.
    """
    figure, (axes,) = sheet(width=6.4, height=5)
    points = sorted(judged_on.points, key=lambda point: point.kept)
    own = [point for point in points if point.name in found]
    hand = [point for point in points if point.name not in found]
    axes.axhline(
        judged_on.full.mean, color="0.3", linewidth=0.9, linestyle="--", label="all edges", zorder=1
    )
    random = [(100 * p.kept, p.random) for p in points if p.random is not None]
    drawn: list[tuple[str, list[tuple[float, Interval]], str, str]] = [
        ("random edges, as many", random, "0.55", "x"),
        (
            "found, by threshold on the effect",
            [(100 * p.kept, p.accuracy) for p in own],
            COLOURS[0],
            "o-",
        ),
        (
            "the paper's ranges, scaled to this depth",
            [(100 * p.kept, p.accuracy) for p in hand],
            COLOURS[1],
            "*",
        ),
    ]
    for label, pairs, colour, form in drawn:
        x, y = [kept for kept, _ in pairs], [at for _, at in pairs]
        size: dict[str, Any] = {"markersize": 10} if form == "*" else {}
        draw_points(axes, Points(label, x, y, colour, form), linewidth=1.4, **size)
    for point in own:
        axes.annotate(
            point.name.removeprefix("found at "),
            (100 * point.kept, point.accuracy.mean),
            xytext=(3, 4),
            textcoords="offset points",
            rotation=60,
            fontsize=7,
            color=COLOURS[0],
        )
    at = judged_on.point(chosen)
    axes.plot(
        100 * at.kept,
        at.accuracy.mean,
        "o",
        markersize=13,
        markerfacecolor="none",
        color=COLOURS[0],
        label="chosen on the other half",
    )
    chance = float(np.mean(1 / table["options"].to_numpy()))
    axes.axhline(chance, color="0.6", linestyle=":", linewidth=1, label="guessing", zorder=1)
    axes.set_xlim(10 * math.floor(10 * points[0].kept - 0.2), 101)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("attention edges kept (%)")
    axes.set_ylabel("accuracy")
    legend(figure, axes)
    form = next(form for form in table["form"].unique().to_pylist() if form)
    said = (
        f"{form} form; found on half of the samples, judged on the other, n = {judged_on.full.n}; "
        f"bars: {SCORE}, of random edges {INTERVAL}, {FROM}"
    )
    headline(figure, "Accuracy with only a pathway's edges", said, table)
    return figure
