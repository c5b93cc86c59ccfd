"""Failure diagnosis: shares of wrong and right answers that a cut of cross-frame edges changes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool
from matplotlib.figure import Figure

from flowjax.report.canvas import Line, draw_lines, head, legend, save_figure, tidy
from flowjax.report.figures import COLOURS
from flowjax.report.statistics import Interval, difference_interval, proportion_interval

GROUPS = ("wrong", "right")

CASES = {
    "case 1": "Case 1: flips",
    "case 2": "Case 2: static",
    "both": "both",
    "neither": "neither",
    "changed": "changes",
}
"""What is counted, of wrong answers and of right ones.

An answer flips if in some window it becomes right, or is no longer, and changes if it becomes any
other; it is static if it stays the same without any cross-frame edge, and for one repeated frame.
"""


@dataclass(frozen=True, eq=False)
class Diagnosed:
    """What every sample shows.

    right: whether its answer is right as the model is.
    flips: bool [samples, layers]: whether the window centred there makes a wrong answer right, or
        a right one wrong.
    changes: bool [samples, layers]: whether it makes the answer any other.
    static: whether the answer is the same with all cross-frame edges cut in all layers, and the
        same for a video that repeats one frame.
    """

    right: Bool[np.ndarray, " samples"]
    flips: Bool[np.ndarray, "samples layers"]
    changes: Bool[np.ndarray, "samples layers"]
    static: Bool[np.ndarray, " samples"]

    @classmethod
    def of(cls, table: pa.Table) -> "Diagnosed":
        """From the rows of a run."""
        base, truth = table["base_answer"].to_pylist(), table["true_answer"].to_pylist()
        windows = table["window_answers"].to_pylist()
        right = np.array(table["correct"].to_pylist(), bool)
        is_right = [
            [answer.lower() == true.lower() for answer in answers]
            for answers, true in zip(windows, truth, strict=True)
        ]
        changes = [
            [answer != own for answer in answers]
            for answers, own in zip(windows, base, strict=True)
        ]
        same = [
            own == cut == still
            for own, cut, still in zip(
                base,
                table["cut_answer"].to_pylist(),
                table["still_answer"].to_pylist(),
                strict=True,
            )
        ]
        flips = np.array(is_right, bool) != right[:, None]
        return cls(right, flips, np.array(changes, bool), np.array(same, bool))

    def hits(self, case: str) -> Bool[np.ndarray, " samples"]:
        """Whether each sample counts for one of `CASES`."""
        one, two = self.flips.any(axis=1), self.static
        return {
            "case 1": one,
            "case 2": two,
            "both": one & two,
            "neither": ~one & ~two,
            "changed": self.changes.any(axis=1),
        }[case]


@dataclass(frozen=True)
class Share:
    """How many samples of each group count for a case.

    share: with a score interval; None for a group without samples.
    difference: share of wrong answers - share of right ones; None where a group is empty.
    """

    case: str
    hits: dict[str, int]
    share: dict[str, Interval | None]
    difference: Interval | None


def shares(found: Diagnosed) -> list[Share]:
    """Every case's share of the wrong and of the right answers."""
    out = []
    for case in CASES:
        hits, share = {}, {}
        for group in GROUPS:
            members = found.right == (group == "right")
            n = int(members.sum())
            hits[group] = int((found.hits(case) & members).sum())
            share[group] = proportion_interval(hits[group], n) if n else None
        wrong, right = share["wrong"], share["right"]
        difference = difference_interval(wrong, right) if wrong and right else None
        out.append(Share(case, hits, share, difference))
    return out


def draw_diagnosis(table: pa.Table, folder: Path) -> list[Path]:
    """Draw the cases' shares, and in which windows answers flip, into `folder`."""
    found = Diagnosed.of(table)
    figure = Figure(figsize=(10, 4), dpi=200, layout="constrained")
    bars, curves = figure.subplots(1, 2, width_ratios=(1, 1.1))
    names = [case for case in CASES if case != "changed"]
    of_case = {share.case: share for share in shares(found)}
    for index, group in enumerate(GROUPS):
        n = int((found.right == (group == "right")).sum())
        if not n:
            continue
        drawn = [of_case[name].share[group] for name in names]
        intervals = [interval for interval in drawn if interval is not None]
        mean = np.array([interval.mean for interval in intervals])
        ends = np.array([[i.mean - i.low, i.high - i.mean] for i in intervals]).T
        bars.barh(
            np.arange(len(names)) + 0.4 * index,
            mean,
            height=0.36,
            color=COLOURS[1 - index],
            xerr=np.maximum(ends, 0),
            error_kw={"elinewidth": 1},
            label=f"answers that are {group} (n = {n})",
        )
    labels = [
        "Case 1:\nflips in some window",
        "Case 2:\nthe same without cross-\nframe edges and for one\nrepeated frame",
        "both",
        "neither",
    ]
    bars.set_yticks(np.arange(len(names)) + 0.2, labels)
    bars.tick_params(axis="y", labelsize=8, length=0)
    bars.invert_yaxis()
    bars.set_xlim(0, 1)
    bars.set_xlabel("share of answers")
    tidy(bars)
    bars.grid(axis="y", visible=False)
    bars.grid(axis="x", color="0.9", linewidth=0.6)
    lines = [
        Line(f"{group} answers made {other}", found.flips[members].astype(np.float64), 1 - index)
        for index, (group, other) in enumerate(zip(GROUPS, reversed(GROUPS), strict=True))
        if (members := found.right == (group == "right")).any()
    ]
    draw_lines(curves, range(found.flips.shape[1]), lines)
    curves.set_ylim(0, max(0.2, curves.get_ylim()[1]))
    curves.set_xlabel("layer (centre of the window cut)")
    curves.set_ylabel("share of answers that flip")
    curves.legend(fontsize=8, frameon=False, loc="upper right")
    legend(figure, bars)
    width = table["width"][0].as_py()
    said = (
        f"cross-frame edges cut in windows of {width} layers; bars: 95% score interval, "
        "bands: 95% bootstrap interval"
    )
    head(figure, "What wrong answers owe to cross-frame edges, beside right ones", said, table)
    return [save_figure(figure, folder / "diagnosis.png")]
