"""Effective pathways: does the answer survive with only a pathway's edges (section 5)."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
from jaxtyping import Float

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.asked.asked import true_token
from flowjax.compilation import use_persistent_cache
from flowjax.errors import FlowjaxError
from flowjax.lens.read import read_logits
from flowjax.models.checkpoint import LoadedModel, load_model
from flowjax.padding import pad_prompt, padded_dense, padded_mask
from flowjax.pathway import (
    FORMS,
    PRESETS,
    Pathway,
    default_pathway,
    kept_fraction,
    preset,
    random_edges,
    read_pathway,
)
from flowjax.progress import Advance
from flowjax.report.pathways import (
    FULL,
    PATHWAY,
    RANDOM,
    TITLES,
    Condition,
    against_random,
    conditions,
    draw_pathways,
)
from flowjax.runs.each_sample import Chosen, each_sample, is_chosen
from flowjax_experiments.columns import documented, shared_columns
from flowjax_experiments.drawn import print_notes, print_paths
from flowjax_experiments.printing import ends, print_table, yes
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

SCHEMA = documented(
    ("options", pa.int32(), "how many options its question has"),
    ("kind", pa.string(), "which edges are kept: full, pathway or random"),
    ("pathway", pa.string(), "the pathway's name"),
    ("form", pa.string(), "paper or strict: of the pathway that is kept, or as many edges as it"),
    ("seed", pa.int32(), "of random edges; -1 otherwise"),
    ("kept_fraction", pa.float64(), "edges kept of all causal edges, 0 to 1"),
    ("new_answer", pa.string(), "most probable next token with these edges"),
    ("new_correct", pa.bool_(), "whether it is the true option's letter"),
    ("true_probability", pa.float64(), "of the true option's letter, 0 to 1"),
    ("base_probability", pa.float64(), "of the base answer, 0 to 1"),
)


@dataclass(frozen=True)
class Asked:
    """As the command line gives it.

    pathway: a preset's name or a JSON file; None for the paper's for this model.
    form: "paper", "strict" or "both"; None for both, but a file's own.
    seeds: how many times random edges are drawn.
    """

    model: Path
    questions: Selection
    pathway: str | None = None
    form: str | None = None
    seeds: int = 3


def pathways_of(asked: Asked, family: str, layers: int) -> tuple[Pathway, ...]:
    """The pathway in each form asked for, for a model of some family and depth.

    Presets are scaled to the model's depth.

    Raises:
        FlowjaxError: an unknown name or form, or a file that is not a pathway of this depth.
    """
    if asked.form not in (None, "both", *FORMS):
        raise FlowjaxError(f"--form {asked.form!r}: choose {', '.join(FORMS)} or both")
    forms = FORMS if asked.form in (None, "both") else (asked.form,)
    if asked.pathway is None:
        return tuple(default_pathway(family, layers, form) for form in forms)
    if asked.pathway in PRESETS:
        return tuple(preset(asked.pathway, form).scaled(layers) for form in forms)
    path = Path(asked.pathway)
    if not path.is_file():
        raise FlowjaxError(
            f"--pathway {asked.pathway!r}: give a JSON file or one of {', '.join(PRESETS)}"
        )
    own = read_pathway(path, layers)
    return tuple(
        dataclasses.replace(own, form=form)
        for form in ((own.form,) if asked.form is None else forms)
    )


def run(asked: Asked, out: Path, *, overwrite: bool) -> list[Condition]:
    """Answer every question with all edges, only the pathway's, and random ones as many.

    Raises:
        FlowjaxError: a bad input.
    """
    use_persistent_cache()
    if asked.seeds < 0:
        raise FlowjaxError(f"--seeds {asked.seeds}: give at least 0")
    samples = asked.questions.read()
    loaded = load_model(asked.model)
    pathways = pathways_of(asked, loaded.config.family, loaded.config.decoder.layers)
    chosen = asked.questions.chosen("all")

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table | None:
        return rows_of(
            loaded, prepared, pathways, seeds=asked.seeds, chosen=chosen, advance=advance
        )

    each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={
            "experiment": "pathways",
            "pathways": [dataclasses.asdict(pathway) for pathway in pathways],
            "seeds": asked.seeds,
            "chosen": chosen,
        },
        strict=asked.questions.strict or asked.questions.one,
        overwrite=overwrite,
    )
    return report(out)


@dataclass(frozen=True, eq=False)
class Answered:
    """Logits at the last position, with the edges of one condition."""

    kind: str
    pathway: str
    form: str
    seed: int
    kept: float
    logits: Float[jax.Array, " vocabulary"]


def answers(
    loaded: LoadedModel, prepared: AskedPrompt, pathways: Sequence[Pathway], seeds: int
) -> Iterator[Answered]:
    """All edges first; then every pathway, each followed by random edges of the same number.

    Raises:
        FlowjaxError: see `Pathway.knockouts` and `random_edges`.
    """
    decoder, config = loaded.model.decoder, loaded.config.decoder
    layout = prepared.prompt.layout
    prompt = pad_prompt(prepared.embedded)
    every = padded_mask(layout, (), config)
    yield Answered(FULL, pathways[0].name, "", -1, 1.0, read_logits(decoder, prompt, every))
    for pathway in pathways:
        cut = pathway.knockouts(layout)
        kept = kept_fraction(layout, cut, layers=config.layers, heads=config.heads)
        mask = padded_mask(layout, cut, config)
        logits = read_logits(decoder, prompt, mask)
        yield Answered(PATHWAY, pathway.name, pathway.form, -1, kept, logits)
        for seed in range(seeds):
            drawn = random_edges(layout, kept, seed=seed, layers=config.layers)
            total = layout.length * (layout.length + 1) // 2
            logits = read_logits(decoder, prompt, padded_dense(drawn.dense()))
            share = 1 - drawn.cut / total
            yield Answered(RANDOM, pathway.name, pathway.form, seed, share, logits)


def rows_of(
    loaded: LoadedModel,
    prepared: AskedPrompt,
    pathways: Sequence[Pathway],
    *,
    seeds: int = 3,
    chosen: Chosen = "all",
    advance: Callable[[int | float], None] = lambda part: None,
) -> pa.Table | None:
    """The rows of one sample, a row per condition; None if its answer is not the one chosen."""
    rows, base_id = [], -1
    for answered in answers(loaded, prepared, pathways, seeds):
        probability = np.asarray(jax.nn.softmax(answered.logits), np.float64)
        new_id = int(probability.argmax())
        if answered.kind == FULL:
            base_id = new_id
            if not is_chosen(chosen, prepared.is_correct(base_id)):
                return None
        rows.append(
            {
                **shared_columns(loaded, prepared, base_id),
                "options": len(prepared.sample.question.options),
                "kind": answered.kind,
                "pathway": answered.pathway,
                "form": answered.form,
                "seed": answered.seed,
                "kept_fraction": answered.kept,
                "new_answer": loaded.tokenizer.decode([new_id]).strip(),
                "new_correct": prepared.is_correct(new_id),
                "true_probability": probability[true_token(prepared)],
                "base_probability": probability[base_id],
            }
        )
        advance(1 / (1 + len(pathways) * (1 + seeds)))
    return pa.Table.from_pylist(rows, SCHEMA)


def report(run: Path) -> list[Condition]:
    """Draw the figure of a finished run and print accuracy and probability of every condition.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table = read_results(run)
    figure = draw_pathways(table, run / "figures" / "pathways.png")
    found = conditions(table)
    print_notes(table)
    seeds = max(at.seeds for at in found)
    if any(at.kind == RANDOM for at in found):
        print(f"Random edges: the mean over {seeds} seeds of every sample.")
    for measure, title in TITLES.items():
        _print_changes(title, found, measure)
    _print_against_random(table)
    print_failures(run)
    print_paths(run, table, [figure])
    return found


def _print_changes(title: str, found: Sequence[Condition], measure: str) -> None:
    rows = []
    for at in found:
        mean, change = at.of[measure].mean, at.of[measure].change
        cells = [at.name, f"{100 * at.kept:.1f}", f"{mean.percent.mean:.2f}"]
        cells.append(ends(mean.percent, ".2f"))
        if at.kind != FULL:
            cells += [f"{change.percent.mean:+.2f}", ends(change.percent, "+.2f")]
            cells.append(yes(change.excludes_zero))
        rows.append(cells)
    columns = ["kept %", "mean", "95% interval", "change", "95% interval", "excludes 0"]
    print_table(f"{title} (%), n = {found[0].of[measure].mean.n}", ["edges"], columns, rows)


def _print_against_random(table: pa.Table) -> None:
    rows = [
        [
            TITLES[measure],
            pair.form,
            f"{interval.percent.mean:+.2f}",
            ends(interval.percent, "+.2f"),
            yes(interval.excludes_zero),
        ]
        for pair in against_random(table)
        for measure, interval in pair.of.items()
    ]
    if rows:
        columns = ["points", "95% interval", "excludes 0"]
        print_table("Pathway minus random edges", ["of", "form"], columns, rows)
