"""Failure diagnosis: do wrong answers come from cross-frame interaction, or from a single frame?

Case 1, spurious interaction: cutting cross-frame edges in some window of layers makes the answer
right. Case 2, static bias: the answer stays the same when all of them are cut in all layers, and
when the video is one frame repeated. Right answers are the control: both have as many windows to
flip in, but any change makes a right answer wrong, and only one of several makes a wrong one right.
"""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import pyarrow as pa

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.asked.asked import ask_sample
from flowjax.compilation import use_persistent_cache
from flowjax.data.frame_order import REPEATED
from flowjax.edges import CROSS_FRAME, Edge, Knockout, windows
from flowjax.models.checkpoint import LoadedModel, load_model
from flowjax.progress import Advance
from flowjax.report.diagnosis import CASES, GROUPS, Diagnosed, Share, draw_diagnosis, shares
from flowjax.runs.each_sample import Chosen, each_sample, is_chosen
from flowjax.sweeps.engine import planned
from flowjax.sweeps.rows import decode_each
from flowjax_experiments.columns import documented, shared_columns
from flowjax_experiments.drawn import print_notes, print_paths
from flowjax_experiments.printing import ends, print_table, yes
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

SCHEMA = documented(
    ("width", pa.int32(), "layers of a window"),
    ("window_answers", pa.list_(pa.string()), "answer, cross-frame edges cut around each layer"),
    ("cut_answer", pa.string(), "answer, cross-frame edges cut in all layers"),
    ("still_answer", pa.string(), "answer to a video that repeats one of the frames"),
)
"""One row per sample; an answer is the most probable next token."""


@dataclass(frozen=True)
class Asked:
    """As the command line gives it; window: layers cut at a time."""

    model: Path
    questions: Selection
    window: int


def run(asked: Asked, out: Path, *, overwrite: bool) -> list[Share]:
    """Diagnose every answer, draw and print.

    Raises:
        FlowjaxError: a bad input.
    """
    use_persistent_cache()
    samples = asked.questions.read()
    loaded = load_model(asked.model)
    windows(asked.window, "center", loaded.config.decoder.layers)
    chosen = asked.questions.chosen("all")

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table | None:
        del advance
        return row_of(loaded, prepared, window=asked.window, chosen=chosen)

    each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={"experiment": "diagnose", "window": asked.window, "chosen": chosen},
        strict=asked.questions.strict or asked.questions.one,
        overwrite=overwrite,
    )
    return report(out)


def row_of(
    loaded: LoadedModel, prepared: AskedPrompt, *, window: int, chosen: Chosen = "all"
) -> pa.Table | None:
    """The row of one sample; None if its answer is not the one chosen."""
    decoder, layout = loaded.model.decoder, prepared.prompt.layout
    layers = decoder.config.layers
    edges = (Edge(CROSS_FRAME, CROSS_FRAME),)
    cuts = [*windows(window, "center", layers), tuple(range(layers))]
    answers = planned(decoder, prepared.embedded, layout, [Knockout(edges, cut) for cut in cuts])
    base_id = int(jnp.argmax(answers.base))
    if not is_chosen(chosen, prepared.is_correct(base_id)):
        return None
    *by_window, cut = decode_each(loaded.tokenizer, answers.collect(len(cuts)).argmax(axis=1))
    still = ask_sample(loaded, prepared.sample, order=REPEATED)
    still_id = planned(decoder, still.embedded, still.prompt.layout, []).base.argmax()
    row = {
        **shared_columns(loaded, prepared, base_id),
        "width": window,
        "window_answers": by_window,
        "cut_answer": cut,
        "still_answer": loaded.tokenizer.decode([int(still_id)]).strip(),
    }
    return pa.Table.from_pylist([row], SCHEMA)


def report(run: Path) -> list[Share]:
    """Draw the figure of a finished run and print how many answers fall into each case.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table = read_results(run)
    figures = draw_diagnosis(table, run / "figures")
    found = Diagnosed.of(table)
    counted = shares(found)
    right = int(found.right.sum())
    print(f"{len(found.right)} samples, {right} answered correctly")
    print_notes(table)
    rows = []
    for share in counted:
        of_group = []
        for group in GROUPS:
            interval = share.share[group]
            shown = "none" if interval is None else f"{interval.mean:.2f} {ends(interval, '.2f')}"
            of_group += [str(share.hits[group]), shown]
        gap = share.difference
        rows.append(
            [
                CASES[share.case],
                *of_group,
                "" if gap is None else f"{gap.mean:+.2f} {ends(gap, '+.2f')}",
                "" if gap is None else yes(gap.excludes_zero),
            ]
        )
    print_table(
        f"Answers when cross-frame edges are cut (windows of {table['width'][0].as_py()} layers)",
        ["case"],
        ["wrong", "share", "right", "share", "wrong - right", "excl. 0"],
        rows,
    )
    print("flips: a wrong answer becomes right, or a right one wrong, in some window")
    print("changes: the answer becomes any other in some window")
    print("static: the same with all cross-frame edges cut everywhere, and for one repeated frame")
    print("Intervals are 95%: Wilson's for shares, Newcombe's for their difference.")
    print_failures(run)
    print_paths(run, table, figures)
    return counted
