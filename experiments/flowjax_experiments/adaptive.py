"""Sample-adaptive pathways: how far edges stay open, by what a prefill sees on its way.

A policy closes edge sets before the first layer at which its doubt is at most a threshold. Policies
stand in *sequences*, each from one that closes late to one that closes early. On one half of the
samples a policy of each sequence is chosen so that few answers are lost, with the guarantee of
`flowjax.report.risk_control`; on the other half it is judged, beside closing at the same layer for
all samples. An answer is lost where it is right with nothing closed and wrong on the route.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from flowjax.asked.asked import Asked
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.inference.adaptive import routed_cost
from flowjax.inference.doubts import follow, shown
from flowjax.inference.exit_rule import ENTROPY, OPTION_GAP
from flowjax.inference.policy import ATTENTION, LAYER, Doubt, Policy, decisions_of
from flowjax.inference.routes import SETS, Routes, compile_routes
from flowjax.layout import TokenLayout
from flowjax.models.decoder import DecoderConfig
from flowjax.models.loaded import LoadedModel
from flowjax.pathway import Pathway
from flowjax.progress import Advance
from flowjax.report.arrays import by_sample
from flowjax.report.canvas import FROM, SCORE, headline, legend, sheet
from flowjax.report.marks import COLOURS, Points, draw_points
from flowjax.report.risk_control import conformal_risk_control, learn_then_test
from flowjax.report.sign_flips import adjusted_p, with_p
from flowjax.report.statistics import Interval, mean_interval, paired_interval, proportion_interval
from flowjax.report.table import JUDGED, PAIRED, Table, ends, judged, tested_note
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import documented
from flowjax.runs.finished import Run
from flowjax.runs.halves import halves
from flowjax_experiments.exit_choice import letters_of
from flowjax_experiments.generate import NONE, cuts, read_choice

THRESHOLDS = (-1.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Of every sequence; the first closes nothing. Chosen before any sample was seen."""

VIDEO = ("video",)
SEQUENCES: dict[str, tuple[Doubt, tuple[str, ...]]] = {
    "attention, all sets": (ATTENTION, SETS),
    "attention, video": (ATTENTION, VIDEO),
    "entropy, video": (ENTROPY, VIDEO),
    "option gap, video": (OPTION_GAP, VIDEO),
}
"""What decides, and what may close."""

FIXED = "one layer for all, video"

LEVELS = (0.02, 0.05, 0.1)
"""Shares of answers that chosen policies may lose."""

DRAWN = 0.05
"""The one of them whose choice the figure shows."""

DELTA = 0.05
"""Share of draws of samples in which more may be lost."""

SURE, IN_THE_MEAN = "in at least 95% of draws", "in the mean over draws"
"""What is guaranteed of the level."""


def sequences(layers: int, decisions: Sequence[int]) -> dict[str, list[Policy]]:
    """Every sequence of policies, in each of which the first closes nothing.

    By what a sample shows, sets may close from a quarter of the layers on.
    """
    start = next(at for at in decisions if at >= layers // 4)
    found = {
        name: [Policy(doubt, at, start, sets) for at in THRESHOLDS]
        for name, (doubt, sets) in SEQUENCES.items()
    }
    never = Policy(LAYER, -1.0, 0, VIDEO)
    found[FIXED] = [never, *(Policy(LAYER, 0.0, at, VIDEO) for at in sorted(decisions)[::-1])]
    return found


@dataclass(frozen=True)
class Adaptive(Analysis):
    """How far edges stay open for each sample, calibrated on one half to lose few answers."""

    SCHEMA = documented(
        ("sequence", pa.string(), "what decides when edge sets close, and which may"),
        ("place", pa.int32(), "of the policy in its sequence; 0 closes nothing"),
        ("threshold", pa.float64(), "at most of the doubt at which sets close"),
        ("closed", pa.list_(pa.int32()), "sets closed in every segment of layers"),
        ("flops", pa.int64(), "of the prefill's matrix products, decisions included"),
        ("full_flops", pa.int64(), "of the one that closes nothing and decides nothing"),
        ("cache_bytes", pa.int64(), "keys and values that decoding reads"),
        ("full_cache_bytes", pa.int64(), "of the prefill that closes nothing"),
        ("new_answer", pa.string(), "most probable next token on this route"),
        ("new_id", pa.int32(), "its token id"),
        ("new_correct", pa.bool_(), "whether it is the true option's letter"),
        ("lost", pa.bool_(), "whether the base answer is right and this one is not"),
    )

    pathway: Annotated[
        str,
        Option("What is cut in any case: none, paper, strict, or a JSON file of a pathway."),
    ] = NONE
    every: Annotated[
        int | None, Option("Layers between decisions. Default: an eighth of them.", least=1)
    ] = None

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Follow every policy through every sample."""
        halves(sample.sample_id for sample in samples)
        layers = loaded.config.decoder.layers
        step = self.every
        decisions = decisions_of(layers) if step is None else tuple(range(step, layers, step))
        if not decisions or decisions[-1] < layers // 2:
            raise FlowjaxError(f"--every {step}: no decision in the later half of {layers} layers")
        pathway = read_choice(self.pathway, loaded, is_open=False)
        policies = sequences(layers, decisions)

        def measure(asked: Asked, advance: Advance) -> Measured:
            routes = _routes(asked.layout, pathway, asked.decoder.config, decisions)
            letters = jnp.asarray(letters_of(asked))
            counts = functools.cache(functools.partial(_counts, asked, routes))
            along = shown(asked.decoder, asked.embedded, routes, letters)
            base = int(along((0,) * len(routes.bounds)).logits.argmax())

            def rows() -> Rows:
                out = []
                for name, own in policies.items():
                    for place, policy in enumerate(own):
                        way = follow(policy, routes, along)
                        new = int(along(way).logits.argmax())
                        out.append(
                            {
                                "sequence": name,
                                "place": place,
                                "threshold": policy.threshold,
                                "closed": list(way),
                                **counts(way, policy.doubt),
                                "new_answer": asked.text_of(new),
                                "new_id": new,
                                "new_correct": asked.is_correct(new),
                                "lost": asked.is_correct(base) and not asked.is_correct(new),
                            }
                        )
                    advance(1 / len(policies))
                return out

            return Measured(base, rows)

        settings = {
            "decisions": list(decisions),
            "layers": layers,
            "pathway": "" if pathway is None else f"{pathway.name}, {pathway.form} form",
            "sequences": list(policies),
        }
        return Work(measure, settings)

    @staticmethod
    def report(run: Run) -> Report:
        """The policies that each guarantee chooses, judged on the half they were not chosen on."""
        read = {name: Outcomes.of(run.rows, name) for name in run.settings["sequences"]}
        first, second = halves(run.rows["sample_id"].to_pylist())
        found_on = {name: at.among(first) for name, at in read.items()}
        judged_on = {name: at.among(second) for name, at in read.items()}
        full = mean_interval(judged_on[FIXED].right[:, 0])
        said = (
            f"{len(first)} samples to calibrate on, {len(second)} to judge on; accuracy there with "
            f"nothing closed {full.mean:.3f} {ends(full, '.3f')}. 100%: the prefill that closes "
            "nothing and decides nothing. *: the cheapest on the first half."
        )
        chosen = [
            choose(found_on, judged_on, level, by=by)
            for by in (SURE, IN_THE_MEAN)
            for level in LEVELS
        ]
        tables = [_table(some) for some in chosen]
        figure = draw_adaptive(run.rows, judged_on, chosen[LEVELS.index(DRAWN)])
        return Report([said, *tables], {"adaptive": figure})


@functools.lru_cache(512)
def _routes(
    layout: TokenLayout,
    pathway: Pathway | None,
    config: DecoderConfig,
    decisions: tuple[int, ...],
) -> Routes:
    """Of prompts that are laid out alike, once."""
    return compile_routes(layout, cuts(pathway, layout), config, decisions=decisions)


def _counts(asked: Asked, routes: Routes, way: tuple[int, ...], doubt: Doubt) -> dict[str, int]:
    value_bytes = asked.embedded.x.dtype.itemsize
    own = routed_cost(routes, way, doubt, value_bytes=value_bytes)
    full = routed_cost(routes, (0,) * len(way), LAYER, value_bytes=value_bytes)
    return {
        "flops": own.flops,
        "full_flops": full.flops,
        "cache_bytes": own.cache_bytes,
        "full_cache_bytes": full.cache_bytes,
    }


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the policies of a sequence do to samples.

    right, lost: bool [samples, policies].
    flops, cache: float64 [samples, policies], shares of what closing nothing takes.
    """

    samples: tuple[str, ...]
    right: Bool[np.ndarray, "samples policies"]
    lost: Bool[np.ndarray, "samples policies"]
    flops: Float[np.ndarray, "samples policies"]
    cache: Float[np.ndarray, "samples policies"]

    @classmethod
    def of(cls, table: pa.Table, sequence: str) -> "Outcomes":
        """From the rows of a run.

        Raises:
            FlowjaxError: see `by_sample`.
        """
        rows = table.filter(pc.field("sequence") == sequence)
        right = by_sample(rows, "new_correct", "place")
        flops, full, cache, full_cache = (
            by_sample(rows, name, "place").values
            for name in ("flops", "full_flops", "cache_bytes", "full_cache_bytes")
        )
        lost = by_sample(rows, "lost", "place").values.astype(bool)
        return cls(right.samples, right.values.astype(bool), lost, flops / full, cache / full_cache)

    def among(self, samples: Collection[str]) -> "Outcomes":
        """Of some samples only."""
        chosen = np.array([name in samples for name in self.samples], bool)
        names = tuple(name for name in self.samples if name in samples)
        return Outcomes(
            names, self.right[chosen], self.lost[chosen], self.flops[chosen], self.cache[chosen]
        )


@dataclass(frozen=True)
class Judged:
    """A sequence's chosen policy on samples that it was not chosen on.

    place: of the policy; cheapest: whether it was, of all sequences', where it was chosen.
    flops, cache: means of the shares that are left.
    lost: share of answers; accuracy; change: from that with nothing closed, paired.
    """

    sequence: str
    place: int
    cheapest: bool
    flops: float
    cache: float
    lost: Interval
    accuracy: Interval
    change: Interval


@dataclass(frozen=True)
class Choice:
    """What a guarantee chooses at a level, of every sequence."""

    by: str
    level: float
    of: tuple[Judged, ...]


def places(found_on: Mapping[str, Outcomes], level: float, *, by: str) -> dict[str, int]:
    """The policy of every sequence that a guarantee chooses.

    by: `SURE` for learn-then-test, in which all sequences share `DELTA` so that the cheapest may be
        taken; `IN_THE_MEAN` for conformal risk control, which holds of each sequence alone.
    """
    return {
        name: learn_then_test(at.lost, level, DELTA / len(found_on))
        if by == SURE
        else conformal_risk_control(at.lost, level)
        for name, at in found_on.items()
    }


def choose(
    found_on: Mapping[str, Outcomes], judged_on: Mapping[str, Outcomes], level: float, *, by: str
) -> Choice:
    """What `places` chooses on some samples, judged on others."""
    chosen = places(found_on, level, by=by)
    cost = {name: at.flops[:, chosen[name]].mean() for name, at in found_on.items()}
    out, changes = [], []
    for name, at in judged_on.items():
        place = chosen[name]
        right, full = at.right[:, place], at.right[:, 0]
        changes.append(right.astype(np.float64) - full)
        lost = at.lost[:, place]
        out.append(
            Judged(
                name,
                place,
                by == SURE and cost[name] == min(cost.values()),
                float(at.flops[:, place].mean()),
                float(at.cache[:, place].mean()),
                proportion_interval(int(lost.sum()), len(lost)),
                mean_interval(right),
                paired_interval(right, full),
            )
        )
    p = adjusted_p(np.stack(changes, axis=1))
    tested = [
        dataclasses.replace(at, change=with_p(at.change, own))
        for at, own in zip(out, p, strict=True)
    ]
    return Choice(by, level, tuple(tested))


def _table(choice: Choice) -> Table:
    rows = [
        [
            f"{at.sequence} *" if at.cheapest else at.sequence,
            str(at.place),
            f"{100 * at.flops:.1f}",
            f"{100 * at.cache:.1f}",
            f"{100 * at.lost.mean:.1f}",
            ends(at.lost.percent, ".1f"),
            "yes" if at.lost.mean <= choice.level else "no",
            f"{at.accuracy.mean:.3f}",
            *judged(at.change, "+.3f"),
        ]
        for at in choice.of
    ]
    columns = ["policy", "FLOPs %", "KV cache %", "lost %", "95% interval", "held", "accuracy"]
    title = f"Chosen to lose at most {100 * choice.level:g}% of answers, {choice.by}"
    note = tested_note(f"the {len(rows)} changes of this table", PAIRED)
    return Table(title, ["sequence"], [*columns, "change", *JUDGED], rows, note)


def draw_adaptive(table: pa.Table, judged_on: Mapping[str, Outcomes], chosen: Choice) -> Figure:
    """Accuracy over FLOPs of every policy, on the half that judges; the chosen ones ringed.

    Args:
        table: the run's rows.
        judged_on: outcomes there, by sequence.
        chosen: the policies to ring.
    """
    figure, (axes,) = sheet(width=6.8, height=5)
    rings = {at.sequence: at.place for at in chosen.of}
    for index, (name, at) in enumerate(judged_on.items()):
        x = 100 * at.flops.mean(axis=0)
        y = [mean_interval(right) for right in at.right.T]
        colour = "0.5" if name == FIXED else COLOURS[index % len(COLOURS)]
        draw_points(axes, Points(name, x.tolist(), y, colour, "o-"), linewidth=1.2)
        ring = rings[name]
        axes.plot(x[ring], y[ring].mean, "o", markersize=12, markerfacecolor="none", color=colour)
    axes.set_xlabel("FLOPs of the prefill (%)")
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    legend(figure, axes)
    samples = len(judged_on[FIXED].samples)
    said = (
        f"judged on the half that nothing was chosen on, n = {samples}; rings: chosen to lose at "
        f"most {100 * chosen.level:g}% of answers, {chosen.by}; bars: {SCORE}, {FROM}"
    )
    headline(figure, "Edges that stay open as long as a sample needs them", said, table)
    return figure
