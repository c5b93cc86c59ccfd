"""Early exit: the layer from which the answer no longer changes, and a rule that stops there."""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.compilation import use_persistent_cache
from flowjax.errors import FlowjaxError
from flowjax.files import atomically
from flowjax.lens.early_exit import option_probabilities
from flowjax.models.checkpoint import LoadedModel, load_model
from flowjax.padding import pad_prompt
from flowjax.progress import Advance
from flowjax.report.early_exit import Judged, Readings, draw_exit, judge, settled_layer
from flowjax.runs.each_sample import Chosen, each_sample, is_chosen
from flowjax_experiments.columns import documented, shared_columns
from flowjax_experiments.drawn import print_notes, print_paths
from flowjax_experiments.halves import halves
from flowjax_experiments.printing import ends, print_table, yes
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

SCHEMA = documented(
    ("layer", pa.int32(), "the answer is read after this layer, 0-based"),
    ("letters", pa.string(), "the options' letters, in order"),
    ("probabilities", pa.list_(pa.float64()), "of each letter among them, summing to 1"),
    ("option", pa.int32(), "index of the most probable letter"),
    ("margin", pa.float64(), "difference of the two largest probabilities"),
    ("right", pa.bool_(), "whether the most probable letter is the true option's"),
)
"""One row per sample and layer."""

FRONTIER = pa.schema(
    [
        pa.field(name, kind, nullable=False, metadata={"doc": doc})
        for name, kind, doc in [
            ("tolerance", pa.float64(), "share of exits with another answer, calibrated to"),
            ("thresholds", pa.list_(pa.float64()), "of the margin, per layer"),
            ("n", pa.int32(), "samples judged on"),
            *(
                (f"{name}_{end}", pa.float64(), f"{doc}: {end}, ends of the 95% interval")
                for name, doc in [
                    ("saved", "layers not run"),
                    ("accuracy", "of the rule's answers"),
                    ("full", "accuracy of the final answers"),
                    ("difference", "accuracy - full, paired"),
                    ("agreement", "share of the rule's answers that are the final ones"),
                ]
                for end in ("mean", "low", "high")
            ),
        ]
    ]
)
"""Columns of `frontier.parquet`: one row per rule."""


@dataclass(frozen=True)
class Asked:
    """As the command line gives it."""

    model: Path
    questions: Selection


def run(asked: Asked, out: Path, *, overwrite: bool) -> list[Judged]:
    """Read every layer's answer, calibrate and judge exit rules, draw and print.

    Raises:
        FlowjaxError: a bad input, or fewer than two samples.
    """
    use_persistent_cache()
    samples = asked.questions.read()
    loaded = load_model(asked.model)
    chosen = asked.questions.chosen("all")
    halves(sample.sample_id for sample in samples)

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table | None:
        del advance
        return rows_of(loaded, prepared, chosen=chosen)

    each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={"experiment": "early_exit", "chosen": chosen},
        strict=asked.questions.strict,
        overwrite=overwrite,
    )
    return report(out)


def rows_of(
    loaded: LoadedModel, prepared: AskedPrompt, *, chosen: Chosen = "all"
) -> pa.Table | None:
    """The rows of one sample; None if its answer is not the one chosen.

    Raises:
        FlowjaxError: the tokenizer has no token for a letter.
    """
    question = prepared.sample.question
    ids = [loaded.tokenizer.token_to_id(letter) for letter in question.letters]
    for letter, token in zip(question.letters, ids, strict=True):
        if token is None:
            raise FlowjaxError(f"the tokenizer has no token for the letter {letter!r}")
    prompt = pad_prompt(prepared.embedded)
    probability, base_id = option_probabilities(loaded.model.decoder, prompt, jnp.asarray(ids))
    if not is_chosen(chosen, prepared.is_correct(int(base_id))):
        return None
    shared = shared_columns(loaded, prepared, int(base_id))
    rows = []
    for layer, row in enumerate(np.asarray(probability, np.float64)):
        second, first = np.sort(row)[-2:]
        option = int(row.argmax())
        rows.append(
            {
                **shared,
                "layer": layer,
                "letters": question.letters,
                "probabilities": row.tolist(),
                "option": option,
                "margin": float(first - second),
                "right": question.letters[option] == question.answer,
            }
        )
    return pa.Table.from_pylist(rows, SCHEMA)


def report(run: Path) -> list[Judged]:
    """Draw the figure of a finished run, write `frontier.parquet` and print what rules save.

    Raises:
        FlowjaxError: see `read_results`, `halves`.
    """
    table = read_results(run)
    readings = Readings.of(table)
    first, second = halves(readings.samples)
    judged_on = readings.among(second)
    rules = judge(readings.among(first), judged_on)
    figures = draw_exit(table, readings, judged_on, rules, run / "figures")
    _write(run / "frontier.parquet", rules)
    layers = readings.margin.shape[1]
    at = settled_layer(readings)
    accuracy = rules[0].full
    print(
        f"{len(readings.samples)} samples. The answer is the most probable letter of the options; "
        f"it no longer changes from layer {at.mean:.1f} of {layers} on "
        f"({ends(at, '.1f')})."
    )
    print_notes(table)
    print_table(
        f"Exit rules found on {len(first)} samples, judged on the other {len(second)} "
        f"(accuracy with all layers {accuracy.mean:.3f})",
        [],
        ["tolerance", "layers saved", "%", "agree", "accuracy", "change", "95% interval",
         "excludes 0"],
        [
            [
                f"{rule.tolerance:g}",
                f"{rule.saved.mean:.2f}",
                f"{100 * rule.saved.mean / layers:.0f}",
                f"{rule.agreement.mean:.3f}",
                f"{rule.accuracy.mean:.3f}",
                f"{rule.difference.mean:+.3f}",
                ends(rule.difference, "+.3f"),
                yes(rule.difference.excludes_zero),
            ]
            for rule in rules
        ],
    )  # fmt: skip
    print("tolerance: share of exits whose answer is not the final one, on the first half")
    print_failures(run)
    print_paths(run, table, figures)
    print(f"rules    {run / 'frontier.parquet'}")
    return rules


def _write(path: Path, rules: list[Judged]) -> None:
    rows = []
    for rule in rules:
        row = {
            "tolerance": rule.tolerance,
            "thresholds": list(rule.thresholds),
            "n": rule.accuracy.n,
        }
        for name in ("saved", "accuracy", "full", "difference", "agreement"):
            interval = getattr(rule, name)
            for end in ("mean", "low", "high"):
                row[f"{name}_{end}"] = getattr(interval, end)
        rows.append(row)
    table = pa.Table.from_pylist(rows, FRONTIER)
    atomically(path, lambda temporary: pq.write_table(table, temporary))
