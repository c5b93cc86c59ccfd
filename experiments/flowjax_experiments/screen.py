"""Screening by gradient: which edge, layer and head matter, before any knockout is run.

One gradient per sample predicts the effect of every knockout of one edge in one layer and head;
the largest are then checked by the knockouts themselves, beside as many drawn at random.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.compilation import use_persistent_cache
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import LoadedModel, load_model
from flowjax.progress import Advance
from flowjax.report.screen import Screened, agreement, draw_screen, screened
from flowjax.runs.each_sample import Chosen, each_sample, is_chosen
from flowjax.screen.choose import Choice, choose, mean_effects, predictions
from flowjax.screen.gradient import PARTS, edge_effects, edges_between, gate_effects
from flowjax.sweeps.engine import planned
from flowjax_experiments.columns import documented, shared_columns
from flowjax_experiments.drawn import print_notes, print_paths
from flowjax_experiments.printing import ends, print_table, yes
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

GROUPS = ("parts", "cells")
EXACT = "exact"
"""Folder of the exact knockouts in a run's folder: a run of its own."""

SHOWN = 20
"""Gates in the printed table."""

GATE = (
    ("edge", pa.string(), "the edge cut, source->target"),
    ("layer", pa.int32(), "the layer it is cut in, 0-based"),
    ("head", pa.int32(), "the head it is cut in, 0-based; -1 for all"),
)
SCHEMA = documented(
    *GATE,
    ("predicted", pa.float64(), "first-order change of the base answer's log-probability, nats"),
    ("base_probability", pa.float64(), "probability of the base answer, 0 to 1"),
)
"""Rows of the run: every gate of every sample."""

EXACT_SCHEMA = documented(
    *GATE,
    ("chosen", pa.string(), "top: among the largest mean predictions; random: from the rest"),
    ("predicted", pa.float64(), "first-order change of the base answer's log-probability, nats"),
    ("exact", pa.float64(), "its change by the knockout, nats"),
    ("base_probability", pa.float64(), "probability of the base answer, 0 to 1"),
    ("new_probability", pa.float64(), "the same with the knockout"),
)
"""Rows of the run in `exact`: the gates that were checked."""


@dataclass(frozen=True)
class Asked:
    """As the command line gives it.

    top: gates checked by exact knockouts, and as many random ones.
    heads: one gate per head, or one for all.
    groups: "parts" (system, video, instruction, question, last) or "cells".
    """

    model: Path
    questions: Selection
    top: int
    heads: bool
    groups: str


def run(asked: Asked, out: Path, *, overwrite: bool) -> list[Screened]:
    """Screen the questions (by default those answered correctly), check, draw and print.

    Raises:
        FlowjaxError: a bad input.
    """
    use_persistent_cache()
    if asked.groups not in GROUPS:
        raise FlowjaxError(f"--groups {asked.groups!r}: choose one of {', '.join(GROUPS)}")
    if asked.top < 2:
        raise FlowjaxError(f"--top {asked.top}: give at least 2 gates")
    samples = asked.questions.read()
    loaded = load_model(asked.model)
    chosen = asked.questions.chosen("correct")
    strict = asked.questions.strict or asked.questions.one

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table | None:
        del advance
        return rows_of(loaded, prepared, heads=asked.heads, groups=asked.groups, chosen=chosen)

    every = {"heads": asked.heads, "groups": asked.groups, "chosen": chosen}
    each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={"experiment": "screen", **every},
        strict=strict,
        overwrite=overwrite,
    )
    _check(loaded, samples, out, top=asked.top, strict=strict)
    return report(out)


def rows_of(
    loaded: LoadedModel,
    prepared: AskedPrompt,
    *,
    heads: bool = True,
    groups: str = "parts",
    chosen: Chosen = "all",
) -> pa.Table | None:
    """The predicted effect of every gate of a sample; None if its answer is not the one chosen."""
    layout = prepared.prompt.layout
    effects = gate_effects(loaded.model.decoder, prepared.embedded, layout, heads=heads)
    base_id = int(np.argmax(effects.logits))
    if not is_chosen(chosen, prepared.is_correct(base_id)):
        return None
    edges = edges_between(layout, PARTS if groups == "parts" else layout.cells)
    predicted = edge_effects(effects, layout, edges)
    layer, head, edge = np.indices(predicted.shape)
    size = predicted.size
    shared = shared_columns(loaded, prepared, base_id)
    columns = {name: pa.repeat(value, size) for name, value in shared.items()}
    columns |= {
        "edge": pa.array(np.array([str(edge) for edge in edges])[edge.ravel()]),
        "layer": pa.array(layer.ravel().astype(np.int32)),
        "head": pa.array((head if heads else head - 1).ravel().astype(np.int32)),
        "predicted": pa.array(predicted.ravel()),
        "base_probability": pa.repeat(float(jax.nn.softmax(effects.logits)[base_id]), size),
    }
    return pa.table(columns, schema=SCHEMA)


def _check(
    loaded: LoadedModel, samples: tuple[Sample, ...], run: Path, *, top: int, strict: bool
) -> None:
    """Run the exact knockouts of the gates that the run's rows single out."""
    table = read_results(run)
    choices = choose(mean_effects(table), top)
    predicted = predictions(table, [choice.gate for choice in choices])

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table:
        del advance
        of_sample = predicted[prepared.sample.sample_id]
        checked = [
            (choice, of_sample[choice.gate]) for choice in choices if choice.gate in of_sample
        ]
        return _exact_rows(loaded, prepared, checked)

    each_sample(
        loaded,
        [sample for sample in samples if sample.sample_id in predicted],
        measure,
        run / EXACT,
        schema=EXACT_SCHEMA,
        settings={
            "experiment": "screen/exact",
            "top": top,
            "gates": [list(choice.gate) for choice in choices],
        },
        strict=strict,
    )


def _exact_rows(
    loaded: LoadedModel, prepared: AskedPrompt, checked: list[tuple[Choice, float]]
) -> pa.Table:
    answers = planned(
        loaded.model.decoder,
        prepared.embedded,
        prepared.prompt.layout,
        [choice.gate.knockout for choice, _ in checked],
    )
    base_id = int(jnp.argmax(answers.base))
    base = float(jax.nn.log_softmax(answers.base)[base_id])
    new = np.asarray(jax.nn.log_softmax(answers.collect(len(checked)))[:, base_id], np.float64)
    shared = shared_columns(loaded, prepared, base_id)
    rows = [
        {
            **shared,
            **choice.gate._asdict(),
            "chosen": choice.why,
            "predicted": value,
            "exact": float(log_p - base),
            "base_probability": float(np.exp(base)),
            "new_probability": float(np.exp(log_p)),
        }
        for (choice, value), log_p in zip(checked, new, strict=True)
    ]
    return pa.Table.from_pylist(rows, EXACT_SCHEMA)


def report(run: Path) -> list[Screened]:
    """Draw the figures of a finished run and print its largest effects, predicted and exact.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table, exact = read_results(run), read_results(run / EXACT)
    figures = draw_screen(table, exact, run / "figures")
    found = screened(exact)
    top = [gate for gate in found if gate.chosen == "top"]
    samples = len(table["sample_id"].unique())
    gates = table.select(["edge", "layer", "head"]).group_by(["edge", "layer", "head"])
    count = gates.aggregate([]).num_rows
    print(f"{samples} samples, {count} gates: one for each edge, layer and head")
    print_notes(table)
    print_table(
        "Largest predicted effects of a knockout on the answer's log-probability (nats)",
        ["edge cut"],
        ["layer", "head", "n", "predicted", "exact", "95% interval", "excludes 0"],
        [
            [
                at.gate.edge,
                str(at.gate.layer + 1),
                "all" if at.gate.head < 0 else str(at.gate.head),
                str(at.exact.n),
                f"{at.predicted.mean:+.4f}",
                f"{at.exact.mean:+.4f}",
                ends(at.exact, "+.4f"),
                yes(at.exact.excludes_zero),
            ]
            for at in top[:SHOWN]
        ],
    )
    effects = sum(at.exact.excludes_zero for at in top)
    print(f"{effects} of the {len(top)} largest have an exact effect whose interval excludes 0")
    for why, what in (("top", "largest"), ("random", "random")):
        of_kind = agreement(found, why)
        print(
            f"rank correlation of predicted and exact means, {of_kind.gates} {what} gates: "
            f"{of_kind.rank:+.3f}"
        )
    print_failures(run)
    print_paths(run, table, figures)
    print(f"rows     {run / EXACT / 'results.parquet'} ({exact.num_rows})")
    return found
