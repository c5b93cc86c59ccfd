"""Failure diagnosis: do wrong answers come from cross-frame interaction, or from a single frame?

Case 1, spurious interaction: cutting cross-frame edges in some window of layers makes the answer
right. Case 2, static bias: the answer stays the same when all of them are cut in all layers, and
when the video is one frame repeated. Right answers are the control: both have as many windows to
flip in, but any change makes a right answer wrong, and only one of several makes a wrong one right.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool
from matplotlib.figure import Figure

from flowjax.asked.asked import Asked, ask_sample
from flowjax.data.frame_order import REPEATED
from flowjax.data.sample import Sample
from flowjax.edges import Edge, Knockout
from flowjax.layer_windows import windows
from flowjax.lens.pictures import Pictures, keep_pictures, pictures_of, read_pictures
from flowjax.models.loaded import LoadedModel
from flowjax.progress import Advance
from flowjax.report.canvas import BAND, FROM, SCORE, headline, inner_legend, legend, sheet
from flowjax.report.marks import WINDOW, Line, draw_bars, draw_lines
from flowjax.report.page.section import Folded, Picture, Section
from flowjax.report.sign_flips import adjusted_p_between, with_p
from flowjax.report.stages import spans
from flowjax.report.statistics import (
    LEAST,
    LEVEL,
    Interval,
    difference_interval,
    proportion_interval,
)
from flowjax.report.table import JUDGED, Table, ends, mean, verdict
from flowjax.runs.analysis import Analysis, Chosen, Measured, Report, Rows, Work
from flowjax.runs.columns import documented
from flowjax.runs.finished import Run
from flowjax.sweeps.engine import planned
from flowjax.sweeps.rows import answer_texts
from flowjax_experiments.sweep import Window, fitted

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

MOST_SHOWN, MOST_FRAMES = 12, 8
"""Wrong answers whose frames are kept for a page, and frames of each."""

DRAWN = {
    "case 1": "Case 1:\nflips in some\nwindow",
    "case 2": "Case 2: the same\nwithout cross-frame\nedges and for one\nrepeated frame",
    "both": "both",
    "neither": "neither",
}


@dataclass(frozen=True)
class Diagnose(Analysis):
    """Whether wrong answers come from cross-frame interaction or from a single frame."""

    SCHEMA = documented(
        ("width", pa.int32(), "layers of a window"),
        (
            "window_answers",
            pa.list_(pa.string()),
            "with cross-frame edges cut around each layer",
        ),
        ("window_ids", pa.list_(pa.int32()), "their token ids"),
        ("cut_answer", pa.string(), "answer, cross-frame edges cut in all layers"),
        ("cut_id", pa.int32(), "its token id"),
        ("still_answer", pa.string(), "answer to a video that repeats one of the frames"),
    )
    CUTS = True

    window: Window = None

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Cut cross-frame edges in every window, and everywhere; then repeat a frame."""
        decoder, layers = loaded.model.decoder, loaded.config.decoder.layers
        width = fitted(self.window, layers)
        cuts = [*windows(width, "center", layers), tuple(range(layers))]
        knockouts = [Knockout((Edge.CROSS_FRAME,), cut) for cut in cuts]

        def measure(asked: Asked, _: Advance) -> Measured:
            answers = planned(decoder, asked.embedded, asked.layout, knockouts)

            def rows() -> Rows:
                ids = answers.collect(len(cuts)).argmax(axis=1)
                *by_window, cut = answer_texts(loaded.tokenizer, ids)
                still = ask_sample(loaded, asked.sample, order=REPEATED)
                row = {"width": width, "window_answers": by_window, "cut_answer": cut}
                row |= {"window_ids": ids[:-1].tolist(), "cut_id": int(ids[-1])}
                return [row | {"still_answer": still.answer}]

            return Measured(int(jnp.argmax(answers.base)), rows)

        return Work(measure, {"window": width})

    def finish(self, run: Run, loaded: LoadedModel, samples: Sequence[Sample]) -> None:
        """Keep frames of wrong answers, for a page to show."""
        wrong = set(run.rows.filter(~pc.field("correct"))["sample_id"].to_pylist())
        shown = [sample for sample in samples if sample.sample_id in wrong][:MOST_SHOWN]
        frames = min(MOST_FRAMES, loaded.config.frames)
        keep_pictures(run.path, [pictures_of(loaded, sample, frames, ()) for sample in shown])

    @classmethod
    def section(cls, index: int, run: Run) -> Section:
        """With the wrong answers and their frames."""
        section = super().section(index, run)
        rows = {row["sample_id"]: row for row in run.rows.to_pylist()}
        parts = [
            _wrong(rows[kept.sample_id], kept)
            for kept in read_pictures(run.path)
            if kept.sample_id in rows
        ]
        return dataclasses.replace(section, parts=[*section.parts, *parts])

    @staticmethod
    def report(run: Run) -> Report:
        """How many answers fall into each case."""
        found = Diagnosed.of(run.rows)
        rows = []
        for share in shares(found):
            of_group = []
            for group in GROUPS:
                interval = share.share[group]
                shown = "none" if interval is None else " ".join(mean(interval, ".2f"))
                of_group += [str(share.hits[group]), shown]
            gap = share.difference
            both = ["", "", ""]
            if gap is not None:
                both = [f"{gap.mean:+.2f} {ends(gap, '+.2f')}", *verdict(gap)]
            rows.append([CASES[share.case], *of_group, *both])
        width = run.rows["width"][0].as_py()
        table = Table(
            f"Answers when cross-frame edges are cut (windows of {width} layers)",
            ["case"],
            ["wrong", "share", "right", "share", "wrong - right", *JUDGED[1:]],
            rows,
        )
        parts = [
            f"{len(found.right)} samples, {int(found.right.sum())} answered correctly",
            table,
            "flips: a wrong answer becomes right, or a right one wrong, in some window",
            "changes: the answer becomes any other in some window",
            "static: the same with all cross-frame edges cut everywhere, and for one repeated "
            "frame",
            "Intervals are 95%: Wilson's for shares, Newcombe's for their difference.",
            f"effect: adj. p < {LEVEL:g} (adjusted: wrong and right exchanged at random, against "
            f"the largest of the {len(CASES)} cases) and an interval without 0; no verdict below "
            f"{LEAST} of either",
        ]
        return Report(parts, {"diagnosis": draw_diagnosis(run.rows)})


def _wrong(row: dict[str, Any], kept: Pictures) -> Folded:
    """A wrong answer: what was asked and seen, and which cuts mend it."""
    mended = [
        layer
        for layer, answer in enumerate(row["window_answers"], 1)
        if answer.lower() == row["true_answer"].lower()
    ]
    flips = f"right in windows around layers {spans(mended)}" if mended else "wrong in every window"
    said = (
        f"Cross-frame edges cut: {flips}; {row['cut_answer']} with all of them cut everywhere. "
        f"One frame repeated: {row['still_answer']}."
    )
    title = f"{row['sample_id']}: answers {row['base_answer']}, right is {row['true_answer']}"
    strip = Picture.strip(kept.frames, f"{len(kept.frames)} frames of {row['sample_id']}")
    return Folded(title, [strip, row["prompt"], said])


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
        """From the rows of a run, in any order."""
        rows = table.sort_by("sample_id").to_pylist()
        right = np.array([row["correct"] for row in rows], bool)
        is_right = [
            [answer.lower() == row["true_answer"].lower() for answer in row["window_answers"]]
            for row in rows
        ]
        changes = [[a != row["base_answer"] for a in row["window_answers"]] for row in rows]
        static = [row["base_answer"] == row["cut_answer"] == row["still_answer"] for row in rows]
        flips = np.array(is_right, bool) != right[:, None]
        return cls(right, flips, np.array(changes, bool), np.array(static, bool))

    def members(self, group: str) -> Bool[np.ndarray, " samples"]:
        """Of one of `GROUPS`."""
        return self.right == (group == "right")

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
    difference: share of wrong answers - share of right ones, tested with all cases; None where a
        group is empty.
    """

    case: str
    hits: dict[str, int]
    share: dict[str, Interval | None]
    difference: Interval | None


def shares(found: Diagnosed) -> list[Share]:
    """Every case's share of the wrong and of the right answers."""
    out = []
    every = np.stack([found.hits(case) for case in CASES], axis=1).astype(np.float64)
    for case, p in zip(CASES, adjusted_p_between(every, ~found.right), strict=True):
        hits, share = {}, {}
        for group in GROUPS:
            members = found.members(group)
            n = int(members.sum())
            hits[group] = int((found.hits(case) & members).sum())
            share[group] = proportion_interval(hits[group], n) if n else None
        wrong, right = share["wrong"], share["right"]
        difference = with_p(difference_interval(wrong, right), p) if wrong and right else None
        out.append(Share(case, hits, share, difference))
    return out


def draw_diagnosis(table: pa.Table) -> Figure:
    """The cases' shares, and in which windows answers flip."""
    found = Diagnosed.of(table)
    figure, (bars, curves) = sheet(2, width=10, height=4.4)
    of_case = {share.case: share.share for share in shares(found)}
    groups, lines = [], []
    for index, group in enumerate(GROUPS):
        members = found.members(group)
        of_group = [of_case[case][group] for case in DRAWN]
        intervals = [interval for interval in of_group if interval is not None]
        if intervals:
            label = f"answers that are {group} (n = {members.sum()})"
            groups.append((label, intervals, 1 - index))
            other = f"{group} answers made {GROUPS[1 - index]}"
            lines.append(Line(other, found.flips[members].astype(np.float64), 1 - index))
    draw_bars(bars, list(DRAWN.values()), groups)
    bars.set_ylabel("share of answers")
    legend(figure, bars)
    draw_lines(curves, range(found.flips.shape[1]), lines, label=WINDOW)
    curves.set_ylim(0, max(0.2, curves.get_ylim()[1]))
    curves.set_ylabel("share of answers that flip")
    inner_legend(curves)
    width = table["width"][0].as_py()
    said = (
        f"cross-frame edges cut in windows of {width} layers; bars: {SCORE}, of shares in windows "
        f"{BAND}, {FROM}"
    )
    headline(figure, "What wrong answers owe to cross-frame edges, beside right ones", said, table)
    return figure
