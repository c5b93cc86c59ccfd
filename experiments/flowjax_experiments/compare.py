"""Two checkpoints of one architecture, such as an image model and the video model made from it.

Both answer the same questions. Cross-frame edges are cut in the first half of the layers, and in
all, for every question; the sweep runs on questions that both answer correctly, so that its curves
are paired over samples.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Array, Float

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.asked.asked import ask_sample
from flowjax.compilation import use_persistent_cache
from flowjax.edges import CROSS_FRAME, Edge, Knockout
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import LoadedModel, load_model
from flowjax.models.embedded import Embedded
from flowjax.progress import Advance
from flowjax.report.compare import (
    ALL,
    FIRST_HALF,
    NONE,
    SIDES,
    WINDOW,
    CutAccuracy,
    PairedCurve,
    cut_accuracies,
    draw_compare,
    names,
    paired_curves,
)
from flowjax.report.statistics import Interval
from flowjax.runs.each_sample import each_sample, is_chosen
from flowjax.runs.settings import model_settings
from flowjax.sweeps.engine import planned
from flowjax.sweeps.protocol import Cell, Protocol, protocol
from flowjax.sweeps.rows import decode_each, relative_change
from flowjax.sweeps.run import protocol_settings
from flowjax_experiments.columns import documented, shared_columns
from flowjax_experiments.drawn import print_notes, print_paths
from flowjax_experiments.printing import ends, print_table, yes
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

EDGE_SETS = ("cross-frame", "vql-to-ql")
"""Swept where nothing else is asked for."""

SCHEMA = documented(
    ("side", pa.string(), "which model: a or b"),
    ("edge_set", pa.string(), "the edge set that the edge is reported under"),
    ("edge", pa.string(), "the edges cut, source->target, joined by +; empty if none"),
    ("cut", pa.string(), "the layers they are cut in: none, first half, all layers or window"),
    ("centre", pa.int32(), "the window's centre layer, 0-based; -1 for the other cuts"),
    ("width", pa.int32(), "the window's width in layers"),
    ("new_answer", pa.string(), "most probable next token with the edges cut"),
    ("new_correct", pa.bool_(), "whether it is the true option's letter"),
    ("base_probability", pa.float64(), "probability of the base answer, 0 to 1"),
    ("new_probability", pa.float64(), "the same with the edges cut"),
    ("relative_change", pa.float64(), "(new - base) * 100 / base, percent"),
)


@dataclass(frozen=True)
class Asked:
    """As the command line gives it."""

    model_a: Path
    model_b: Path
    questions: Selection
    edge_sets: tuple[str, ...]
    edges: tuple[str, ...]
    window: int

    @property
    def protocol(self) -> Protocol:
        """Edges and windows of the sweep."""
        sets = self.edge_sets if self.edge_sets or self.edges else EDGE_SETS
        return protocol(sets, self.edges, width=self.window)


@dataclass(frozen=True, eq=False)
class _Asking:
    """One model at work on one sample; base: its logits without a knockout."""

    loaded: LoadedModel
    prepared: AskedPrompt
    embedded: Embedded
    base: Float[Array, " vocabulary"]

    @property
    def base_id(self) -> int:
        return int(jnp.argmax(self.base))

    @property
    def correct(self) -> bool:
        return self.prepared.is_correct(self.base_id)


def run(asked: Asked, out: Path, *, overwrite: bool) -> tuple[list[CutAccuracy], list[PairedCurve]]:
    """Ask both models, draw and print.

    Raises:
        FlowjaxError: a bad input, or models of different configurations.
    """
    use_persistent_cache()
    chosen, samples = asked.protocol, asked.questions.read()
    models = load_model(asked.model_a), load_model(asked.model_b)
    _check_alike(*models)
    decoder = models[0].config.decoder
    half = tuple(range(decoder.layers // 2))
    cuts = {FIRST_HALF: half, ALL: tuple(range(decoder.layers))}
    which = asked.questions.chosen("correct")

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table:
        del advance
        tables, asking = [], []
        for side, loaded in zip(SIDES, models, strict=True):
            own = prepared if side == "a" else ask_sample(loaded, prepared.sample)
            embedded = own.embedded
            edges = (Edge(CROSS_FRAME, CROSS_FRAME),)
            knockouts = [Knockout(edges, layers) for layers in cuts.values()]
            answers = planned(loaded.model.decoder, embedded, own.prompt.layout, knockouts)
            at = _Asking(loaded, own, embedded, answers.base)
            asking.append(at)
            logits = np.concatenate([answers.base[None], answers.collect(len(knockouts))])
            cells = [("", "", NONE, -1), *(("cross-frame", CROSS_FRAME, cut, -1) for cut in cuts)]
            tables.append(_rows(at, side, cells, logits, chosen.width))
        if all(is_chosen(which, at.correct) for at in asking):
            for side, at in zip(SIDES, asking, strict=True):
                tables.append(_swept(at, side, chosen))
        return pa.concat_tables(tables)

    each_sample(
        models[0],
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={
            "experiment": "compare",
            "other": model_settings(models[1]),
            **protocol_settings(chosen),
            "chosen": which,
        },
        strict=asked.questions.strict or asked.questions.one,
        overwrite=overwrite,
    )
    return report(out)


def _swept(at: _Asking, side: str, chosen: Protocol) -> pa.Table:
    decoder = at.loaded.model.decoder
    layout = chosen.layout(at.prepared.prompt.layout)
    cells: tuple[Cell, ...] = chosen.cells(layout, decoder.config.layers, decoder.config.heads)
    answers = planned(decoder, at.embedded, layout, [cell.knockout for cell in cells])
    keys = [(cell.edge_set, cell.knockout.name, WINDOW, cell.centre) for cell in cells]
    return _rows(at, side, keys, answers.collect(len(cells)), chosen.width)


def _rows(
    at: _Asking,
    side: str,
    cells: list[tuple[str, str, str, int]],
    logits: Float[np.ndarray, "k vocabulary"],
    width: int,
) -> pa.Table:
    """A row per cell: edge set, edge, cut and centre."""
    tokenizer = at.loaded.tokenizer
    base = float(jax.nn.softmax(at.base)[at.base_id])
    new = np.asarray(jax.nn.softmax(jnp.asarray(logits))[:, at.base_id], np.float64)
    new_ids = logits.argmax(axis=1)
    shared = shared_columns(at.loaded, at.prepared, at.base_id) | {"side": side, "width": width}
    rows = [
        {
            **shared,
            "edge_set": edge_set,
            "edge": edge,
            "cut": cut,
            "centre": centre,
            "new_answer": answer,
            "new_correct": at.prepared.is_correct(int(new_id)),
            "base_probability": base,
            "new_probability": float(probability),
            "relative_change": float(change),
        }
        for (edge_set, edge, cut, centre), answer, new_id, probability, change in zip(
            cells,
            decode_each(tokenizer, new_ids),
            new_ids,
            new,
            relative_change(base, new),
            strict=True,
        )
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def _check_alike(a: LoadedModel, b: LoadedModel) -> None:
    """Refuse models whose layers cannot be compared one by one."""
    if a.path.resolve() == b.path.resolve():
        raise FlowjaxError(f"{a.path} is given twice; compare two checkpoints")
    if type(a.config) is not type(b.config):
        raise FlowjaxError(f"{a.path} and {b.path} are models of different kinds")
    different = [
        field.name
        for field in dataclasses.fields(a.config)
        if getattr(a.config, field.name) != getattr(b.config, field.name)
    ]
    if different:
        raise FlowjaxError(
            f"{a.path} and {b.path} differ in {', '.join(different)}; only checkpoints of one "
            "architecture can be compared layer by layer"
        )


def report(run: Path) -> tuple[list[CutAccuracy], list[PairedCurve]]:
    """Draw the figures of a finished run and print how the models differ.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table = read_results(run)
    figures = draw_compare(table, run / "figures")
    accuracy, found = cut_accuracies(table), paired_curves(table)
    called = names(table)
    print(f"{accuracy[0].difference.n} samples; " + ", ".join(called[side] for side in SIDES))
    print_notes(table)
    _print_accuracy(accuracy)
    if not found:
        print("No sample counts for both models (see --samples), so no window was swept.")
    else:
        _print_curves(found)
    print_failures(run)
    print_paths(run, table, figures)
    return accuracy, found


def _print_accuracy(found: list[CutAccuracy]) -> None:
    rows = []
    for at in found:
        for side in SIDES:
            accuracy = at.accuracy[side]
            row = [at.cut, side.upper(), f"{accuracy.mean:.3f}", ends(accuracy, ".3f")]
            rows.append([*row, *(_change(at.change[side]) if at.cut != NONE else [""] * 3)])
        if at.cut != NONE:
            rows.append([at.cut, "B - A", "", "", *_change(at.difference)])
    print_table(
        "Accuracy with cross-frame edges cut, and what the cut changes",
        ["cut in", "model"],
        ["accuracy", "95% interval", "change", "95% interval", "excludes 0"],
        rows,
    )


def _change(interval: Interval) -> list[str]:
    return [f"{interval.mean:+.3f}", ends(interval, "+.3f"), yes(interval.excludes_zero)]


def _print_curves(found: list[PairedCurve]) -> None:
    rows = []
    for curve in found:
        at = curve.widest
        gap = curve.difference(at)
        rows.append(
            [
                curve.edge_set,
                curve.edge,
                str(curve.layer[at]),
                *(f"{curve.mean(side)[at]:+.1f}" for side in SIDES),
                f"{gap.mean:+.1f}",
                ends(gap, "+.1f"),
                yes(gap.excludes_zero),
            ]
        )
    print_table(
        f"Window where the change of the answer's probability differs most, n = {found[0].samples}",
        ["edge set", "edge cut"],
        ["layer", "A %", "B %", "B - A", "95% interval", "excludes 0"],
        rows,
    )
