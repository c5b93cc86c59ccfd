"""The flow map: what cutting every edge at every layer changes, for every run and task.

The data of `static/flow.js` and `static/curves.js`. Means over all tasks are tested together, as
`flowjax sweep` prints them, and those of single tasks together in a second family.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from flowjax.report.arrays import BySample, grouped
from flowjax.report.curves import Curve, JudgedCurve, curves, judged_curves, together
from flowjax.report.figures import window_of
from flowjax.report.page.lanes import PATCH, label, lanes, on_map, parts_of
from flowjax.report.page.section import Section, Widget
from flowjax.report.stages import ARROW, UNMEASURED, stages
from flowjax.report.statistics import bootstrap_mean

PALETTE = ("#0060A8", "#D55E00", "#008F6B", "#C9609E", "#222222")
"""Colours of edge sets: told apart by colour-blind readers, and at least 3:1 against white."""

ALL = "all tasks"
SETS = {
    "cross-frame": "frames to later frames",
    "vql-to-ql": "video, question and last position",
    "question-and-options-to-last": "stem and options to the last position",
    "vq-to-true-opt": "video and stem to the true option",
    "custom": "edges of your own",
    PATCH: "patched states",
}

LEAD = (
    "A ribbon is an attention edge that was cut in a window of layers. It runs from the tokens "
    "that are read, above, down to those that read them, and it is as wide as the cut changes the "
    "probability of the model's answer: a wide ribbon is an edge that the answer needs there. "
    "Hairlines are cuts whose change is not significant when all windows are tested together. "
    "Layers count from 1, from left to right."
)
CURVES = (
    "How much each cut changes the probability of the model's answer, as lines with their "
    "pointwise 95% intervals (studentised bootstrap over samples; none below 6 samples). Many "
    "edges are a row of a heat map each. Layers count from 1."
)
PATCHED = (
    "Each row of a heat map is a group of tokens whose states were replaced in a window of layers; "
    "its colour is how much the probability of the model's answer changes. Layers count from 1."
)
PAIR = (
    "The same cuts on both models, on the questions that both runs hold, so that the difference "
    "is paired over samples. A ribbon of the last map is as wide as the models differ: solid where "
    "the second model loses more of its answer's probability, dashed where the first does."
)

READ = ("sample_id", "task", "edge_set", "edge", "head", "centre", "relative_change")
"""Columns that curves are made of; all others are left where they are."""

Views = Mapping[str, Sequence[JudgedCurve]]
"""Judged curves of edges by task."""


@dataclass(frozen=True, eq=False)
class Swept:
    """One sweep.

    label: what its model or run is called.
    rows: with the columns of `flowjax.sweeps.rows.SCHEMA` that curves read.
    """

    label: str
    rows: pa.Table

    @property
    def style(self) -> str:
        """Of its windows."""
        return self.rows["style"][0].as_py()


def sections(sweeps: Sequence[Swept]) -> list[Section]:
    """The flow map of some sweeps, two models beside each other, and the curves."""
    every = [(one.label, views(one.rows), one.style) for one in sweeps]
    data = flow_data(every, window=window_of(sweeps[0].rows))
    kinds = {edge_set["name"] == PATCH for edge_set in data["sets"]}
    title = "Patched states by layer" if kinds == {True} else "Every edge by layer"
    lead = " ".join(text for patch, text in ((False, CURVES), (True, PATCHED)) if patch in kinds)
    out = [Section("curves", title, lead, [Widget("curves", data)])]
    if any(edge["parts"] for edge in data["edges"]):  # else all are tokens or patches
        said = [_summary(*one) for one in every]
        out.append(Section("flow", "The flow map", LEAD, [Widget("flow", data)], said))
    pair = next(
        (
            (a, b)
            for index, a in enumerate(sweeps)
            for b in sweeps[index + 1 :]
            if a.rows["model"][0] != b.rows["model"][0] and _same(a.rows, b.rows)
        ),
        None,
    )
    if pair is not None:
        out.append(paired(*pair))
    return out


def _summary(label: str, found: Views, style: str) -> str:
    """The stages over all tasks in one sentence."""
    task, edges = next(iter(found.items()))
    said = [at for at in stages(edges, style) if at.short != UNMEASURED]
    parts = [f"{at.stage.name}: {at.short}" for at in said] or [_most(edges)]
    where = f" ({task.replace('_', ' ')})" if task else ""
    return f"{label}{where}: {'; '.join(parts)}."


def _most(edges: Sequence[JudgedCurve]) -> str:
    """The largest effect of all, for a sweep that cuts no stage as a whole."""
    every = (
        (abs(at.curve.mean[index]), -place, index, at)
        for place, at in enumerate(edges)
        for index in range(len(at.p))
        if at.interval(index).is_effect
    )
    found = max(every, default=None, key=lambda one: one[:2])
    if found is None:
        return "no cut changes the answer's probability significantly"
    _, _, index, at = found
    head = "" if at.curve.head < 0 else f" in head {at.curve.head}"
    where = f"{edge_text(at.curve.edge)}{head} at layer {at.curve.layer[index]}"
    return f"the largest change is {at.curve.mean[index]:+.1f}%, by cutting {where}"


def paired(a: Swept, b: Swept) -> Section:
    """Two models on the questions that both hold, and their difference."""
    shared = set(a.rows["sample_id"].to_pylist()) & set(b.rows["sample_id"].to_pylist())
    chosen = [Swept(one.label, _among(one.rows, shared)) for one in (a, b)]
    every = [(one.label, views(one.rows), one.style) for one in chosen]
    gap = difference(chosen[0].rows, chosen[1].rows)
    every.append((f"{b.label} \N{MINUS SIGN} {a.label}", gap, "difference"))
    data = flow_data(every, window=window_of(a.rows), beside=True)
    title = f"What differs between {a.label} and {b.label}"
    return Section("pair", title, PAIR, [Widget("flow", data)])


def views(rows: pa.Table) -> dict[str, list[JudgedCurve]]:
    """Every edge's tested curve over all tasks, and over each where there are several."""
    rows = rows.select(READ)
    names = grouped(rows, "task")
    found = {ALL if len(names) > 1 else next(iter(names)): judged_curves(rows)[0]}
    if len(names) > 1:
        found |= dict(zip(names, judged_curves(*names.values()), strict=True))
    return found


def difference(a: pa.Table, b: pa.Table) -> dict[str, list[JudgedCurve]]:
    """b - a of every edge that both cut, in points of percent, paired over samples.

    a, b: rows of the same samples.
    """
    names = list(grouped(a, "task"))
    of_a, of_b = grouped(a, "task"), grouped(b, "task")
    found = {ALL if len(names) > 1 else names[0]: together([_gaps(a, b)])[0]}
    if len(names) > 1:
        found |= dict(zip(names, together([_gaps(of_a[n], of_b[n]) for n in names]), strict=True))
    return found


def _gaps(a: pa.Table, b: pa.Table) -> list[Curve]:
    of_b = {(c.edge_set, c.edge, c.head): c for c in curves(b)}
    out = []
    for curve in curves(a):
        other = of_b.get((curve.edge_set, curve.edge, curve.head))
        if other is None or other.found.axes != curve.found.axes:
            continue
        if other.found.samples != curve.found.samples:
            continue
        gap = BySample(
            curve.found.samples, curve.found.axes, other.found.values - curve.found.values
        )
        mean, low, high = bootstrap_mean(gap.values)
        out.append(Curve(curve.edge_set, curve.edge, curve.head, gap, mean, low, high))
    return out


def _same(a: pa.Table, b: pa.Table) -> bool:
    """Whether two sweeps are of the same windows and share samples."""
    shared = set(a["sample_id"].to_pylist()) & set(b["sample_id"].to_pylist())
    windows = [{column: rows[column].unique().to_pylist() for column in ("width", "style")}
               for rows in (a, b)]  # fmt: skip
    return bool(shared) and windows[0] == windows[1]


def _among(rows: pa.Table, samples: set[str]) -> pa.Table:
    kept = np.isin(rows["sample_id"].to_numpy(zero_copy_only=False), sorted(samples))
    return rows.filter(pa.array(kept))


def flow_data(
    every: Sequence[tuple[str, Views, str]], *, window: str, beside: bool = False
) -> dict[str, Any]:
    """What the page's scripts draw, as JSON values.

    Args:
        every: label, judged curves by task and windows' style of each sweep; style "difference" for
            what is not a sweep.
        window: the windows, in words.
        beside: whether maps are drawn one after another, and not one at a time.
    """
    edges: dict[tuple[str, str, int], int] = {}
    tasks: dict[str, int] = {}
    shown = []
    for run, (_, of_tasks, style) in enumerate(every):
        for task, found in of_tasks.items():
            numbers = [
                [edges.setdefault((at.curve.edge_set, at.curve.edge, at.curve.head), len(edges)),
                 *_numbers(at)]
                for at in found
            ]  # fmt: skip
            said = [] if style == "difference" else stages(found, style)
            shown.append(
                {
                    "run": run,
                    "task": tasks.setdefault(task, len(tasks)),
                    "n": max((at.curve.samples for at in found), default=0),
                    "edges": numbers,
                    "effects": sum(
                        at.interval(i).is_effect for at in found for i in range(len(at.p))
                    ),
                    "stages": [
                        {
                            "name": at.stage.name,
                            "what": at.stage.what,
                            "said": at.sentence,
                            "short": at.short,
                            "found": bool(at.layers),
                        }
                        for at in said
                    ],
                }
            )
    sets = {name: index for index, name in enumerate(dict.fromkeys(e[0] for e in edges))}
    drawn = [edge for name, edge, _ in edges if on_map(name, edge)]
    every_layer = [layer for view in shown for one in view["edges"] for layer in one[2]]
    return {
        "window": window,
        "beside": beside,
        "start": _liveliest(shown),
        "layers": max(every_layer),
        **lanes(drawn),
        "sets": [
            {"name": name, "about": SETS.get(name, ""), "colour": PALETTE[index % len(PALETTE)]}
            for name, index in sets.items()
        ],
        "edges": [
            {
                "set": sets[name],
                "name": edge_text(edge),
                "head": head,
                "parts": parts_of(edge) if on_map(name, edge) else [],
            }
            for name, edge, head in edges
        ],
        "runs": [
            {"label": label, "difference": style == "difference"} for label, _, style in every
        ],
        "tasks": list(tasks),
        "views": shown,
    }


def _liveliest(shown: Sequence[Mapping[str, Any]]) -> int:
    """The run with the most edges that are effects over all tasks; the first of equals."""
    first = {view["run"]: view["effects"] for view in reversed(shown)}
    return max(sorted(first), key=lambda run: first[run])


def _numbers(at: JudgedCurve) -> list[Any]:
    curve = at.curve
    columns = (curve.mean, curve.low, curve.high)
    return [
        curve.samples,
        curve.layer.tolist(),
        *(_short(values) for values in columns),
        _short(at.p, 5),
    ]


def _short(values: Float[np.ndarray, " n"], digits: int = 2) -> list[float | None]:
    """Rounded, with nothing in the place of what is not there."""
    return [None if math.isnan(value) else round(value, digits) for value in values.tolist()]


def edge_text(edge: str) -> str:
    """An edge, or what was patched, as a reader calls it; frames count from 1, as on the map."""
    site, colon, rows = edge.partition(":")
    if colon:
        where = f"positions {rows}" if rows[:1].isdigit() else label(rows)
        return f"{where} ({site})"
    text = re.sub(r"\bframe_\d+\b", lambda found: label(found[0]), edge)
    return text.replace("->", f" {ARROW} ").replace("_", " ").replace("+", " + ")
