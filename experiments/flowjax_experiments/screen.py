"""Screening by gradients: which edge, layer and head matter, before any knockout is run.

A few gradients per sample predict the effect of every knockout of one edge in one layer and head;
the largest are then checked by the knockouts themselves, beside as many drawn at random. The check
is a run of its own in the folder `exact`.
"""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowjax.asked.asked import Asked
from flowjax.data.sample import Sample
from flowjax.models.loaded import LoadedModel
from flowjax.progress import Advance
from flowjax.report.arrays import beside, by_sample, distinct
from flowjax.report.canvas import BAR, arrow, caption, count_of, headline, inner_legend, sheet
from flowjax.report.marks import COLOURS, LAYER, Points, draw_heat, draw_points
from flowjax.report.sign_flips import adjusted_p, with_p
from flowjax.report.statistics import Interval, mean_interval, rank_correlation
from flowjax.report.table import JUDGED, Table, judged, tested_note
from flowjax.report.table import LAYER as LAYER_TITLE
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import documented
from flowjax.runs.finished import Run, read_run
from flowjax.runs.run import analyse
from flowjax.screen.choose import KEYS, Choice, Gate, choose, mean_effects, predictions
from flowjax.screen.gradient import (
    PARTS,
    POINTS,
    edge_effects,
    edges_between,
    margin_of,
    rivals_of,
)
from flowjax.sweeps.engine import planned

EXACT = "exact"
"""Folder of the exact knockouts in a run's folder."""

SHOWN, MOST_EDGES = 20, 40
"""Gates in the printed table; edges drawn, those with the largest effects."""

WHY = {"top": "largest predictions", "random": "drawn at random from the rest"}

GATE = (
    ("edge", pa.string(), "the edge cut, source->target"),
    ("layer", pa.int32(), "the layer it is cut in, 0-based"),
    ("head", pa.int32(), "the head it is cut in, 0-based; -1 for all"),
)


@dataclass(frozen=True)
class Screen(Analysis):
    """Predict the effect of every edge, layer and head by gradients; check the largest."""

    SCHEMA = documented(
        *GATE,
        ("predicted", pa.float64(), "predicted change of the answer's margin, in logits"),
        ("base_probability", pa.float64(), "probability of the base answer, 0 to 1"),
    )
    CHOSEN = "correct"
    CUTS = True

    top: Annotated[
        int,
        Option("Gates checked by exact knockouts, and as many at random.", least=2, decides=False),
    ] = 50
    heads: Annotated[
        bool, Option("A gate for each head, or one for all.", "--heads/--no-heads")
    ] = True
    groups: Annotated[
        Literal["parts", "cells"],
        Option("parts (system, video, instruction, question, last) or cells."),
    ] = "parts"

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Some gradients for every sample."""

        def measure(asked: Asked, _: Advance) -> Measured:
            answer = int(asked.logits.argmax())
            among = PARTS if self.groups == "parts" else asked.layout.cells
            edges = edges_between(asked.layout, among)

            def rows() -> Rows:
                predicted = edge_effects(
                    asked.decoder, asked.embedded, asked.layout, edges, answer,
                    rivals(asked, answer), heads=self.heads,
                )  # fmt: skip
                layer, head, edge = (index.ravel() for index in np.indices(predicted.shape))
                base = float(jax.nn.softmax(jnp.asarray(asked.logits))[answer])
                return {
                    "edge": pa.array(np.array([str(edge) for edge in edges])[edge]),
                    "layer": pa.array(layer.astype(np.int32)),
                    "head": pa.array((head if self.heads else head - 1).astype(np.int32)),
                    "predicted": pa.array(predicted.ravel().astype(np.float64)),
                    "base_probability": pa.repeat(base, predicted.size),
                }

            return Measured(answer, rows)

        return Work(measure)

    def finish(self, run: Run, loaded: LoadedModel, samples: Sequence[Sample]) -> None:
        """Run the exact knockouts of the gates that the rows single out."""
        choices = choose(mean_effects(run.rows), self.top)
        predicted = predictions(run.rows, [choice.gate for choice in choices])
        exact = Exact(choices, predicted)
        some = [sample for sample in samples if sample.sample_id in predicted]
        analyse(exact, loaded, some, run.path / EXACT, chosen="all", overwrite="other")

    @staticmethod
    def report(run: Run) -> Report:
        """The largest effects, predicted and exact."""
        exact = read_run(run.path / EXACT)
        found = screened(exact.rows)
        top = [gate for gate in found if gate.chosen == "top"]
        samples, gates = len(run.rows["sample_id"].unique()), len(distinct(run.rows, *KEYS))
        rows = [
            [
                at.gate.edge,
                str(at.gate.layer + 1),
                "all" if at.gate.head < 0 else str(at.gate.head),
                str(at.exact.n),
                f"{at.predicted.mean:+.4f}",
                *judged(at.exact, "+.4f"),
            ]
            for at in top[:SHOWN]
        ]
        titles = [LAYER_TITLE, "head (from 0)", "n", "predicted", "exact"]
        table = Table(
            "Largest predicted effects of a knockout on the answer's margin (logits)",
            ["edge cut"],
            [*titles, *JUDGED],
            rows,
            tested_note(f"all {len(found)} gates that were checked"),
        )
        effects = sum(at.exact.is_effect for at in top)
        parts = [
            f"{samples} samples, {gates} gates: one for each edge, layer and head",
            table,
            f"{effects} of the {len(top)} largest predictions are effects of the exact knockout",
            "p is not adjusted for the choice of these gates, by predictions for the same samples",
        ]
        for why, what in (("top", "largest"), ("random", "random")):
            of_kind = agreement(found, why)
            parts.append(
                f"rank correlation of predicted and exact means, {of_kind.gates} {what} gates: "
                f"{of_kind.rank:+.3f}"
            )
        figures = {"gates": _map(run.rows), "predicted-and-exact": _scatter(exact.rows)}
        return Report(parts, figures, {"exact": run.path / EXACT / "results.parquet"})


@dataclass(frozen=True)
class Exact(Analysis):
    """The knockouts of gates that a screening singled out: its second run, and no command."""

    SCHEMA = documented(
        *GATE,
        ("chosen", pa.string(), "top: among the largest mean predictions; random: from the rest"),
        ("predicted", pa.float64(), "predicted change of the answer's margin, in logits"),
        ("exact", pa.float64(), "its change by the knockout, in logits"),
        ("base_probability", pa.float64(), "probability of the base answer, 0 to 1"),
        ("new_probability", pa.float64(), "the same with the knockout"),
    )

    choices: Annotated[tuple[Choice, ...], Option("The gates.", decides=False)]
    predicted: Annotated[
        Mapping[str, Mapping[Gate, float]], Option("Of each gate, by sample.", decides=False)
    ]

    @classmethod
    def name(cls) -> str:
        """Of its runs; there is no command."""
        return f"{super().name()} {EXACT}"

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Close each gate that the sample has."""

        def measure(asked: Asked, _: Advance) -> Measured:
            of_sample = self.predicted[asked.sample.sample_id]
            checked = [choice for choice in self.choices if choice.gate in of_sample]
            knockouts = [choice.gate.knockout for choice in checked]
            answers = planned(asked.decoder, asked.embedded, asked.layout, knockouts)
            answer = int(jnp.argmax(answers.base))

            def rows() -> Rows:
                logits = jnp.stack([answers.base, *answers.collect(len(checked))])
                margins = np.asarray(margin_of(logits, answer, rivals(asked, answer)), np.float64)
                probability = np.asarray(jax.nn.softmax(logits), np.float64)[:, answer]
                return [
                    {
                        **choice.gate._asdict(),
                        "chosen": choice.why,
                        "predicted": of_sample[choice.gate],
                        "exact": margin - margins[0],
                        "base_probability": probability[0],
                        "new_probability": new,
                    }
                    for choice, margin, new in zip(
                        checked, margins[1:].tolist(), probability[1:].tolist(), strict=True
                    )
                ]

            return Measured(answer, rows)

        gates = [list(choice.gate) for choice in self.choices]
        return Work(measure, {"gates": gates})


def rivals(asked: Asked, answer: int) -> Bool[np.ndarray, " vocabulary"]:
    """The tokens that an answer's margin is over: the other options', where there are any."""
    return rivals_of(answer, list(asked.letter_ids.values()), len(asked.logits))


@dataclass(frozen=True)
class Screened:
    """A gate that was checked: means over samples, in logits of the answer's margin."""

    gate: Gate
    chosen: str
    predicted: Interval
    exact: Interval


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of the means predicted and exact over some gates (NaN for fewer than 2)."""

    gates: int
    rank: float


def screened(exact: pa.Table) -> list[Screened]:
    """Means of the gates that were checked, in the order in which they were chosen.

    Exact means are tested together.
    """
    found, values = [], []
    for edge, layer, head, why in distinct(exact, *KEYS, "chosen"):
        at = [
            pc.field(name) == value for name, value in zip(KEYS, (edge, layer, head), strict=True)
        ]
        rows = exact.filter(at[0] & at[1] & at[2])
        of_gate = [by_sample(rows, name) for name in ("predicted", "exact")]
        values.append(of_gate[1])
        intervals = (mean_interval(at.values) for at in of_gate)
        found.append(Screened(Gate(edge, layer, head), why, *intervals))
    p = adjusted_p(beside(values))
    found = [
        dataclasses.replace(at, exact=with_p(at.exact, own))
        for at, own in zip(found, p, strict=True)
    ]
    # A gate that the first sample lacks was met late.
    rank = {"top": 0, "random": 1}
    return sorted(found, key=lambda at: (rank[at.chosen], -abs(at.predicted.mean)))


def agreement(found: Sequence[Screened], chosen: str) -> Agreement:
    """How alike predicted and exact means rank the gates chosen for one reason."""
    some = [at for at in found if at.chosen == chosen]
    predicted = np.array([at.predicted.mean for at in some])
    exact = np.array([at.exact.mean for at in some])
    return Agreement(len(some), rank_correlation(predicted, exact))


def _scatter(exact: pa.Table) -> Figure:
    figure, (axes,) = sheet(width=5.6, height=5.2)
    found = screened(exact)
    for index, (why, said) in enumerate(WHY.items()):
        some = [at for at in found if at.chosen == why]
        of_kind = agreement(found, why)
        label = f"{of_kind.gates} {said}: rank correlation {of_kind.rank:+.2f}"
        points = Points(
            label,
            [at.predicted.mean for at in some],
            [at.exact for at in some],
            COLOURS[index],
            "os"[index],
        )
        face = COLOURS[index] if index == 0 else "white"
        draw_points(axes, points, markersize=4, markerfacecolor=face, zorder=2 + index)
    same = {"color": "0.5", "linewidth": 0.8, "linestyle": "--", "label": "exact = predicted"}
    axes.axline((0, 0), slope=1, **same)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))  # small numbers have long labels
    axes.set_xlabel("predicted by the gradients (logits)")
    axes.set_ylabel("exact knockout (logits)")
    inner_legend(axes)
    samples = len(exact["sample_id"].unique())
    said = f"{count_of(samples, BAR)}; a point is one edge in one layer and head"
    headline(figure, "Change of the answer's margin over its best rival by a knockout", said, exact)
    return figure


def _map(table: pa.Table) -> Figure:
    """Edges by layers, summed over heads; beside it, layers by heads, the largest of any edge."""
    effects = mean_effects(table)
    edges = list(dict.fromkeys(table["edge"].to_pylist()))
    layers = max(gate.layer for gate in effects) + 1
    heads = max(gate.head for gate in effects) + 1
    by_edge = np.zeros((len(edges), layers))
    by_head = np.zeros((max(heads, 1), layers))
    place = {edge: index for index, edge in enumerate(edges)}
    for gate, value in effects.items():
        by_edge[place[gate.edge], gate.layer] += value
        at = max(gate.head, 0), gate.layer
        by_head[at] = max(by_head[at], value, key=abs)
    shown = np.sort(np.argsort(-np.abs(by_edge).max(axis=1), kind="stable")[:MOST_EDGES])
    figure, panels = sheet(
        2 if heads else 1,
        width=9 if heads else 6.5,
        height=1.9 + 0.17 * max(len(shown), heads),
    )
    labels = [textwrap.shorten(arrow(edges[index]), 45, placeholder=" ...") for index in shown]
    left = "every edge" if len(shown) == len(edges) else f"the {len(shown)} edges that do most"
    drawn = [(by_edge[shown], labels, f"{left}, in all heads at once")]
    if heads:
        said = "every head (from 0): its edge that does most"
        drawn.append((by_head, list(map(str, range(heads))), said))
    for axes, (values, names, said) in zip(panels, drawn, strict=True):
        figure.colorbar(draw_heat(axes, values, names), ax=axes, aspect=30)
        axes.set_xlabel(LAYER)
        caption(axes, said)
    if heads:
        panels[1].set_ylabel("head")
    samples = len(table["sample_id"].unique())
    said = f"logits over the best rival, mean over n = {samples}; {len(POINTS)} gradients each"
    headline(figure, "Predicted effect of cutting an edge in one layer", said, table)
    return figure
