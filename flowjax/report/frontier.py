"""Pathways found from a sweep: accuracy over the share of edges kept."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowjax.errors import FlowjaxError
from flowjax.pathway import Pathway
from flowjax.report.canvas import head, legend, save_figure, tidy
from flowjax.report.figures import COLOURS
from flowjax.report.pathways import FULL, PATHWAY, RANDOM
from flowjax.report.statistics import Interval, mean_interval, paired_interval

SWEPT = {
    "cross_frame": "cross_frame",
    "video_to_question": "video->question",
    "question_to_last": "question->last",
}
"""Fields of a pathway, and the edges of a sweep that decide them."""


def mean_curves(sweep: pa.Table, samples: Collection[str]) -> dict[str, Float[np.ndarray, " l"]]:
    """Mean relative change, in percent, of each edge of `SWEPT` at every layer.

    Args:
        sweep: rows of a sweep.
        samples: those to average over.

    Raises:
        FlowjaxError: an edge that was not swept, windows of another style than `center`, or no rows
            of these samples.
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
        means = of_edge.group_by("centre").aggregate([("relative_change", "mean")])
        found[field] = means.sort_by("centre")["relative_change_mean"].to_numpy()
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
    gap: accuracy - random, paired.
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


def frontier(table: pa.Table, samples: Collection[str]) -> Frontier:
    """Accuracy and kept edges of every pathway on some of a run's samples.

    Raises:
        FlowjaxError: none of the samples is there.
    """
    rows = table.filter(pc.field("sample_id").isin(sorted(samples)))
    if not rows.num_rows:
        raise FlowjaxError("the results have no rows of this half of the samples")
    order = rows["sample_id"].unique().to_pylist()

    def right(kind: str, name: str | None = None) -> Float[np.ndarray, " n"] | None:
        some = rows.filter(pc.field("kind") == kind)
        if name is not None:
            some = some.filter(pc.field("pathway") == name)
        values: dict[str, list[bool]] = {}
        for sample, value in zip(
            some["sample_id"].to_pylist(), some["new_correct"].to_pylist(), strict=True
        ):
            values.setdefault(sample, []).append(value)
        return np.array([np.mean(values[sample]) for sample in order]) if values else None

    full = right(FULL)
    assert full is not None
    of_pathways = rows.filter(pc.field("kind") == PATHWAY)
    points = []
    for name in of_pathways["pathway"].unique().to_pylist():
        own, random = right(PATHWAY, name), right(RANDOM, name)
        assert own is not None
        kept = of_pathways.filter(pc.field("pathway") == name)["kept_fraction"].to_numpy()
        points.append(
            Point(
                name,
                float(kept.mean()),
                mean_interval(own),
                paired_interval(own, full),
                None if random is None else mean_interval(random),
                None if random is None else paired_interval(own, random),
            )
        )
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
    table: pa.Table, judged: Frontier, found: Collection[str], chosen: str, folder: Path
) -> list[Path]:
    """Draw accuracy over kept edges into `folder`.

    Args:
        table: the run's rows.
        judged: on the half that nothing was found on.
        found: names of the pathways found; others are hand-set.
        chosen: the one written to `found.json`.
        folder: is made.
    """
    figure = Figure(figsize=(6.4, 5), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    own = sorted((p for p in judged.points if p.name in found), key=lambda point: point.kept)
    hand = [point for point in judged.points if point.name not in found]
    axes.axhline(
        judged.full.mean, color="0.3", linewidth=0.9, linestyle="--", label="all edges", zorder=1
    )
    random = sorted((p for p in judged.points if p.random is not None), key=lambda p: p.kept)
    if random:
        intervals = [point.random for point in random if point.random is not None]
        _bars(axes, [p.kept for p in random], intervals, "0.55", "x", "random edges, as many")
    _bars(
        axes,
        [p.kept for p in own],
        [p.accuracy for p in own],
        COLOURS[0],
        "o-",
        "found, by threshold on the effect",
    )
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
    _bars(
        axes,
        [p.kept for p in hand],
        [p.accuracy for p in hand],
        COLOURS[1],
        "*",
        "the paper's ranges, scaled to this depth",
    )
    at = judged.point(chosen)
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
    least = min(point.kept for point in judged.points)
    axes.set_xlim(10 * math.floor(10 * least - 0.2), 101)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("attention edges kept (%)")
    axes.set_ylabel("accuracy")
    tidy(axes)
    legend(figure, axes)
    form = next(form for form in table["form"].unique().to_pylist() if form)
    said = (
        f"{form} form; found on half of the samples, judged on the other, n = {judged.full.n}; "
        "bars: 95% interval"
    )
    head(figure, "Accuracy with only a pathway's edges", said, table)
    return [save_figure(figure, folder / "frontier.png")]


def _bars(
    axes: Axes,
    kept: Sequence[float],
    intervals: Sequence[Interval],
    colour: str,
    style: str,
    label: str,
) -> None:
    mean = np.array([interval.mean for interval in intervals])
    ends = np.array([[i.mean - i.low, i.high - i.mean] for i in intervals]).reshape(-1, 2).T
    axes.errorbar(
        100 * np.array(kept),
        mean,
        yerr=ends if intervals and intervals[0].n > 1 else None,
        fmt=style,
        color=colour,
        markersize=10 if style == "*" else 5,
        linewidth=1.4,
        elinewidth=0.8,
        label=label,
    )
