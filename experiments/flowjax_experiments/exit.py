"""Early exit: the layer from which the answer no longer changes, and a rule that stops there.

A rule is calibrated on one half of the samples and judged on the other.
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowjax.asked.asked import Asked
from flowjax.data.sample import Sample
from flowjax.lens.early_exit import calibrate, exits, option_probabilities, settled
from flowjax.models.loaded import LoadedModel
from flowjax.padding import pad_prompt
from flowjax.progress import Advance
from flowjax.report.arrays import by_sample
from flowjax.report.canvas import BAND, FROM, SCORE, caption, headline, inner_legend, sheet
from flowjax.report.marks import COLOURS, Line, Points, draw_lines, draw_points
from flowjax.report.sign_flips import adjusted_p, with_p
from flowjax.report.statistics import Interval, mean_interval, paired_interval
from flowjax.report.table import JUDGED as JUDGED_TITLES
from flowjax.report.table import PAIRED, Table, ends, judged, tested_note
from flowjax.runs.analysis import Analysis, Chosen, Measured, Report, Rows, Work
from flowjax.runs.columns import documented, schema
from flowjax.runs.finished import Run
from flowjax.runs.halves import halves

TOLERANCES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of exits with another answer than the final one that rules are calibrated to."""

JUDGED = {
    "saved": "layers not run",
    "accuracy": "of the rule's answers",
    "full": "accuracy of the final answers",
    "difference": "accuracy - full, paired",
    "agreement": "share of the rule's answers that are the final ones",
}
FRONTIER = schema(
    ("tolerance", pa.float64(), "share of exits with another answer, calibrated to"),
    ("thresholds", pa.list_(pa.float64()), "of the margin, per layer"),
    ("n", pa.int32(), "samples judged on"),
    *(
        (f"{name}_{end}", pa.float64(), f"{doc}: {end}, ends of the 95% interval")
        for name, doc in JUDGED.items()
        for end in ("mean", "low", "high")
    ),
)
"""Columns of `frontier.parquet`: one row per rule."""


@dataclass(frozen=True)
class Exit(Analysis):
    """The layer from which answers no longer change, and what a rule that stops there saves."""

    SCHEMA = documented(
        ("layer", pa.int32(), "the answer is read after this layer, 0-based"),
        ("letters", pa.string(), "the options' letters, in order"),
        ("probabilities", pa.list_(pa.float64()), "of each letter among them, summing to 1"),
        ("option", pa.int32(), "index of the most probable letter"),
        ("margin", pa.float64(), "difference of the two largest probabilities"),
        ("right", pa.bool_(), "whether the most probable letter is the true option's"),
    )

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Read the options' letters after every layer."""
        halves(sample.sample_id for sample in samples)

        def measure(asked: Asked, _: Advance) -> Measured:
            letters = jnp.asarray(list(asked.letter_ids.values()))
            prompt = pad_prompt(asked.embedded)
            probability, answer = option_probabilities(asked.decoder, prompt, letters)
            return Measured(int(answer), lambda: _rows(asked, np.asarray(probability)))

        return Work(measure)

    @staticmethod
    def report(run: Run) -> Report:
        """When answers settle, and what rules save, which is also in `frontier.parquet`."""
        readings = Readings.of(run.rows)
        first, second = halves(readings.samples)
        judged_on = readings.among(second)
        rules = judge(readings.among(first), judged_on)
        layers = readings.margin.shape[1]
        at = mean_interval(settled(readings.answer) + 1.0)
        said = (
            f"{len(readings.samples)} samples. The answer is the most probable letter of the "
            f"options; it no longer changes from layer {at.mean:.1f} of {layers} on, counted from "
            f"1 ({ends(at, '.1f')})."
        )
        title = (
            f"Exit rules found on {len(first)} samples, judged on the other {len(second)} "
            f"(accuracy with all layers {rules[0].full.mean:.3f})"
        )
        numbers = ["tolerance", "layers saved", "%", "agree", "accuracy", "change"]
        rows = [
            [
                f"{rule.tolerance:g}",
                f"{rule.saved.mean:.2f}",
                f"{100 * rule.saved.mean / layers:.0f}",
                f"{rule.agreement.mean:.3f}",
                f"{rule.accuracy.mean:.3f}",
                *judged(rule.difference, "+.3f"),
            ]
            for rule in rules
        ]
        tested = tested_note(f"all {len(rules)} rules", PAIRED)
        table = Table(title, [], [*numbers, *JUDGED_TITLES], rows, tested)
        note = "tolerance: share of exits whose answer is not the final one, on the first half"
        figure = draw_exit(run.rows, readings, judged_on, rules)
        return Report(
            [said, table, note], {"exit": figure}, tables={"rules": ("frontier", _table(rules))}
        )


def _rows(asked: Asked, probability: Float[np.ndarray, "layers options"]) -> Rows:
    question, rows = asked.sample.question, []
    for layer, row in enumerate(probability.astype(np.float64)):
        second, first = np.sort(row)[-2:]
        option = int(row.argmax())
        rows.append(
            {
                "layer": layer,
                "letters": question.letters,
                "probabilities": row.tolist(),
                "option": option,
                "margin": float(first - second),
                "right": question.letters[option] == question.answer,
            }
        )
    return rows


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
    """A rule calibrated on other samples, on those it is judged on; see `JUDGED`.

    tolerance: it was calibrated to.
    thresholds: of the margin, per layer; infinite where it never exits.
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
    out, changes = [], []
    for tolerance in TOLERANCES:
        thresholds = calibrate(found_on.margin, found_on.agrees, tolerance)
        at = exits(judged_on.margin, thresholds)
        own = np.take_along_axis(judged_on.right, at[:, None], axis=1)[:, 0]
        agrees = np.take_along_axis(judged_on.agrees, at[:, None], axis=1)[:, 0]
        changes.append(own.astype(np.float64) - full)
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
    p = adjusted_p(np.stack(changes, axis=1))
    return [
        dataclasses.replace(at, difference=with_p(at.difference, own))
        for at, own in zip(out, p, strict=True)
    ]


def _table(rules: Sequence[Judged]) -> pa.Table:
    rows = [
        {"tolerance": at.tolerance, "thresholds": list(at.thresholds), "n": at.accuracy.n}
        | {
            f"{name}_{end}": getattr(getattr(at, name), end)
            for name in JUDGED
            for end in ("mean", "low", "high")
        }
        for at in rules
    ]
    return pa.Table.from_pylist(rows, FRONTIER)


def draw_exit(
    table: pa.Table, readings: Readings, judged_on: Readings, rules: Sequence[Judged]
) -> Figure:
    """When answers settle, and what rules save.

    Args:
        table: the run's rows.
        readings: of all samples.
        judged_on: of those that rules are judged on.
        rules: judged.
    """
    figure, (left, right) = sheet(2, width=9.5, height=4.1)
    layers = readings.margin.shape[1]
    done = settled(readings.answer)[:, None] <= np.arange(layers)
    lines = [
        Line("answer is settled", done.astype(np.float64), 0),
        Line("answer read here is right", readings.right.astype(np.float64), 1),
    ]
    draw_lines(left, range(layers), lines)
    left.set_ylim(0, 1.02)
    left.set_ylabel("share of samples")
    caption(left, f"all samples, n = {len(readings.samples)}")
    inner_legend(left)
    _frontier(right, judged_on, rules)
    said = (
        "the answer is the most probable option letter after a layer, through the final norm; "
        f"{BAND}, {FROM}; bars: of accuracy {SCORE}, of layers as bands"
    )
    headline(figure, "Exit after an early layer", said, table)
    return figure


def _frontier(axes: Axes, judged_on: Readings, rules: Sequence[Judged]) -> None:
    layers = judged_on.margin.shape[1]
    fixed = judged_on.right.mean(axis=0)
    percent = 100 / layers
    saved = percent * np.arange(layers - 1, -1, -1)
    label = "every sample after the same layer"
    axes.plot(saved, fixed, color="0.6", linewidth=1.2, marker=".", label=label)
    axes.axhline(
        fixed[-1], color="0.3", linewidth=0.9, linestyle="--", label="all layers", zorder=1
    )
    drawn: dict[tuple[float, float], list[Judged]] = {}
    for rule in rules:
        drawn.setdefault((rule.saved.mean, rule.accuracy.mean), []).append(rule)
    some = [same[0] for same in drawn.values()]
    across = [
        Interval(at.saved.n, *(percent * x for x in (at.saved.mean, at.saved.low, at.saved.high)))
        for at in some
    ]
    accuracy = [at.accuracy for at in some]
    draw_points(
        axes, Points("rule, by its tolerance", [], accuracy, COLOURS[0], across=across), zorder=3
    )
    for at, same in zip(across, drawn.values(), strict=True):
        axes.annotate(
            ", ".join(f"{rule.tolerance:g}" for rule in same),
            (at.mean, same[0].accuracy.mean),
            xytext=(4, 5),
            textcoords="offset points",
            fontsize=7,
            color=COLOURS[0],
        )
    axes.set_xlabel("layers saved (%)")
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    caption(axes, f"rule calibrated on one half, judged on the other, n = {len(judged_on.samples)}")
    inner_legend(axes)
