"""Early exit: from which layer answers are settled, and what a calibrated rule saves."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowjax.lens.early_exit import calibrate, exits, settled
from flowjax.report.arrays import by_sample
from flowjax.report.canvas import Line, draw_lines, head, save_figure, tidy
from flowjax.report.figures import COLOURS
from flowjax.report.statistics import Interval, mean_interval, paired_interval

TOLERANCES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of exits with another answer than the final one that rules are calibrated to."""


@dataclass(frozen=True, eq=False)
class Readings:
    """What every sample's layers say.

    answer: int64 [samples, layers], index of the most probable option after each layer.
    margin: float64 [samples, layers].
    right: bool [samples, layers], whether that option is the true one.
    """

    samples: tuple[str, ...]
    answer: Int[np.ndarray, "samples layers"]
    margin: Float[np.ndarray, "samples layers"]
    right: Bool[np.ndarray, "samples layers"]

    @classmethod
    def of(cls, table: pa.Table) -> "Readings":
        """From the rows of a run.

        Raises:
            FlowjaxError: see `by_sample`.
        """
        margin = by_sample(table, "margin", "layer")
        answer = by_sample(table, "option", "layer").values.astype(np.int64)
        right = by_sample(table, "right", "layer").values.astype(bool)
        return cls(margin.samples, answer, margin.values, right)

    @property
    def agrees(self) -> Bool[np.ndarray, "samples layers"]:
        """Whether the answer after a layer is the final one."""
        return self.answer == self.answer[:, -1:]

    def among(self, samples: Collection[str]) -> "Readings":
        """Of some samples only."""
        chosen = np.array([name in samples for name in self.samples], bool)
        names = tuple(name for name in self.samples if name in samples)
        return Readings(names, self.answer[chosen], self.margin[chosen], self.right[chosen])


@dataclass(frozen=True)
class Judged:
    """A rule calibrated on other samples, on those it is judged on.

    tolerance: it was calibrated to.
    thresholds: of the margin, per layer; infinite where it never exits.
    saved: layers not run.
    accuracy: of its answers; full: of the final answers; difference: accuracy - full, paired.
    agreement: share of its answers that are the final ones.
    """

    tolerance: float
    thresholds: tuple[float, ...]
    saved: Interval
    accuracy: Interval
    full: Interval
    difference: Interval
    agreement: Interval


def judge(found_on: Readings, judged_on: Readings) -> list[Judged]:
    """One rule for each of `TOLERANCES`."""
    layers = judged_on.margin.shape[1]
    full = judged_on.right[:, -1]
    out = []
    for tolerance in TOLERANCES:
        thresholds = calibrate(found_on.margin, found_on.agrees, tolerance)
        at = exits(judged_on.margin, thresholds)
        own = np.take_along_axis(judged_on.right, at[:, None], axis=1)[:, 0]
        agrees = np.take_along_axis(judged_on.agrees, at[:, None], axis=1)[:, 0]
        out.append(
            Judged(
                tolerance,
                tuple(thresholds.tolist()),
                mean_interval((layers - 1 - at).astype(np.float64)),
                mean_interval(own),
                mean_interval(full),
                paired_interval(own, full),
                mean_interval(agrees),
            )
        )
    return out


def settled_layer(readings: Readings) -> Interval:
    """The layer (from 1) from which on the answer is the final one."""
    return mean_interval(settled(readings.answer) + 1.0)


def draw_exit(
    table: pa.Table, readings: Readings, judged_on: Readings, rules: Sequence[Judged], folder: Path
) -> list[Path]:
    """Draw when answers settle, and what rules save, into `folder`.

    Args:
        table: the run's rows.
        readings: of all samples.
        judged_on: of those that rules are judged on.
        rules: judged.
        folder: is made.
    """
    figure = Figure(figsize=(9.5, 4.1), dpi=200, layout="constrained")
    left, right = figure.subplots(1, 2)
    layers = readings.margin.shape[1]
    done = settled(readings.answer)[:, None] <= np.arange(layers)
    draw_lines(
        left,
        range(layers),
        [
            Line("answer is settled", done.astype(np.float64), 0),
            Line("answer read here is right", readings.right.astype(np.float64), 1),
        ],
    )
    left.set_ylim(0, 1.02)
    left.set_ylabel("share of samples")
    left.set_title(f"all samples, n = {len(readings.samples)}", fontsize=8, color="0.3")
    left.legend(fontsize=7, frameon=False)
    _frontier(right, judged_on, rules)
    said = (
        "the answer is the most probable option letter after a layer, through the final norm; "
        "bands and bars: 95% bootstrap interval"
    )
    head(figure, "Exit after an early layer", said, table)
    return [save_figure(figure, folder / "exit.png")]


def _frontier(axes: Axes, judged_on: Readings, rules: Sequence[Judged]) -> None:
    layers = judged_on.margin.shape[1]
    fixed = judged_on.right.mean(axis=0)
    percent = 100 / layers
    axes.plot(
        percent * np.arange(layers - 1, -1, -1),
        fixed,
        color="0.6",
        linewidth=1.2,
        marker=".",
        label="every sample after the same layer",
    )
    axes.axhline(
        fixed[-1], color="0.3", linewidth=0.9, linestyle="--", label="all layers", zorder=1
    )
    drawn: dict[tuple[float, float], list[Judged]] = {}
    for rule in rules:
        drawn.setdefault((rule.saved.mean, rule.accuracy.mean), []).append(rule)
    for index, ((saved, accuracy), same) in enumerate(drawn.items()):
        rule = same[0]
        axes.errorbar(
            percent * saved,
            accuracy,
            yerr=_bars(rule.accuracy),
            xerr=percent * _bars(rule.saved),
            fmt="o",
            color=COLOURS[0],
            markersize=5,
            elinewidth=0.8,
            label="rule, by its tolerance" if index == 0 else None,
            zorder=3,
        )
        axes.annotate(
            ", ".join(f"{rule.tolerance:g}" for rule in same),
            (percent * saved, accuracy),
            xytext=(4, 5),
            textcoords="offset points",
            fontsize=7,
            color=COLOURS[0],
        )
    axes.set_xlabel("layers saved (%)")
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    axes.set_title(
        f"rule calibrated on one half, judged on the other, n = {len(judged_on.samples)}",
        fontsize=8,
        color="0.3",
    )
    axes.legend(fontsize=7, frameon=False)
    tidy(axes)


def _bars(interval: Interval) -> Float[np.ndarray, "2 1"]:
    """Lengths of an error bar below and above the mean."""
    return np.array([[interval.mean - interval.low], [interval.high - interval.mean]])
