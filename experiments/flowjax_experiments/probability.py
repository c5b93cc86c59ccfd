"""Generation probability: from which layer on the true option leads (section 4 of the paper)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.compilation import use_persistent_cache
from flowjax.errors import FlowjaxError
from flowjax.lens.project import option_ids
from flowjax.lens.read import read_generation
from flowjax.models.checkpoint import LoadedModel, load_model
from flowjax.padding import pad_prompt
from flowjax.progress import Advance
from flowjax.report.probability import (
    LayerProbability,
    draw_probability,
    emerges_at,
    layer_probabilities,
)
from flowjax.runs.each_sample import Chosen, each_sample, is_chosen
from flowjax.sweeps.rows import decode_each
from flowjax_experiments.columns import documented, shared_columns
from flowjax_experiments.drawn import print_notes, print_paths
from flowjax_experiments.printing import ends, print_table, yes
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

SCHEMA = documented(
    ("layer", pa.int32(), "the next token is read after this layer, 0-based"),
    ("normed", pa.bool_(), "final norm at every layer; False: at the last layer only"),
    ("letters", pa.string(), "the options' letters, in order"),
    ("probabilities", pa.list_(pa.float64()), "of each option's letter, 0 to 1"),
    ("true_probability", pa.float64(), "of the true option's letter"),
    ("false_probability", pa.float64(), "mean over the false options' letters"),
    ("top_ids", pa.list_(pa.int32()), "the most probable tokens, the first the most"),
    ("top_tokens", pa.list_(pa.string()), "their texts"),
    ("top_probabilities", pa.list_(pa.float64()), "their probabilities, 0 to 1"),
)


@dataclass(frozen=True)
class Asked:
    """As the command line gives it; top_k: tokens kept per layer."""

    model: Path
    questions: Selection
    top_k: int = 10


def run(asked: Asked, out: Path, *, overwrite: bool) -> list[LayerProbability]:
    """Read the next token after every layer, for the questions answered correctly by default.

    Raises:
        FlowjaxError: a bad input.
    """
    use_persistent_cache()
    samples = asked.questions.read()
    loaded = load_model(asked.model)
    vocabulary = loaded.config.decoder.vocabulary
    if not 1 <= asked.top_k <= vocabulary:
        raise FlowjaxError(f"--top-k {asked.top_k}: give 1 to {vocabulary} tokens")
    chosen = asked.questions.chosen("correct")

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table | None:
        del advance
        return rows_of(loaded, prepared, k=asked.top_k, chosen=chosen)

    each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={"experiment": "probability", "top_k": asked.top_k, "chosen": chosen},
        strict=asked.questions.strict or asked.questions.one,
        overwrite=overwrite,
    )
    return report(out)


def rows_of(
    loaded: LoadedModel, prepared: AskedPrompt, *, k: int = 10, chosen: Chosen = "all"
) -> pa.Table | None:
    """The rows of one sample; None if its answer is not the one chosen."""
    read = read_generation(loaded.model.decoder, pad_prompt(prepared.embedded))
    probability = np.asarray(read)
    base_id = int(probability[0, -1].argmax())
    if not is_chosen(chosen, prepared.is_correct(base_id)):
        return None
    question = prepared.sample.question
    ids = option_ids(loaded.tokenizer, question.letters, base_id)
    is_true = np.array([letter == question.answer for letter in question.letters])
    shared = shared_columns(loaded, prepared, base_id)
    rows = []
    for normed in (False, True):
        for layer, row in enumerate(probability[int(normed)]):
            # Equal probabilities stay in the order of their ids.
            top = np.argsort(-row, kind="stable")[:k]
            options = row[ids].astype(np.float64)
            rows.append(
                {
                    **shared,
                    "layer": layer,
                    "normed": normed,
                    "letters": question.letters,
                    "probabilities": options.tolist(),
                    "true_probability": float(options[is_true][0]),
                    "false_probability": float(options[~is_true].mean()),
                    "top_ids": top.tolist(),
                    "top_tokens": decode_each(loaded.tokenizer, top),
                    "top_probabilities": row[top].astype(np.float64).tolist(),
                }
            )
    return pa.Table.from_pylist(rows, SCHEMA)


def report(run: Path) -> list[LayerProbability]:
    """Draw the figures of a finished run and print every layer's probabilities.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table = read_results(run)
    figures = draw_probability(table, run / "figures")
    found = layer_probabilities(table)
    normed = [at for at in found if at.normed]
    print_notes(table)
    print_table(
        f"Probability of the options after every layer, final norm, n = {normed[0].gap.n}",
        [],
        ["layer", "true", "false, mean", "true - false", "95% interval", "excludes 0"],
        [
            [
                str(at.layer),
                f"{at.true.mean:.4f}",
                f"{at.false.mean:.4f}",
                f"{at.gap.mean:+.4f}",
                ends(at.gap, "+.4f"),
                yes(at.gap.excludes_zero),
            ]
            for at in normed
        ],
    )
    layer = emerges_at(normed)
    print(
        "At the last layer the true option is not ahead of the false ones: the interval does not "
        "lie above 0."
        if layer is None
        else f"The true option is ahead of the false ones from layer {layer} on: every interval "
        "lies above 0."
    )
    print_failures(run)
    print_paths(run, table, figures)
    return found
