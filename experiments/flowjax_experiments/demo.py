"""The demo: the trained pair on its benchmark, from checkpoints and videos to figures.

An image model and the video model tuned from it answer the same questions; the paper's four edge
sets are swept on both, and what video tuning changed is printed and drawn per task. One answer of
each task is read layer by layer, and all of it is put on one page.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from flowjax.compilation import use_persistent_cache
from flowjax.data.benchmark import read_benchmark
from flowjax.data.sample import Sample
from flowjax.data.shapes.benchmark import write_benchmark
from flowjax.data.shapes.tasks import VIDEO_TASKS
from flowjax.errors import FlowjaxError
from flowjax.files import writing
from flowjax.folders import is_free
from flowjax.models.checkpoint import load_model
from flowjax.models.loaded import LoadedModel
from flowjax.report.accuracy import accuracies
from flowjax.report.arrays import grouped
from flowjax.report.curves import judged_curves, strongest
from flowjax.report.pair import draw_pair
from flowjax.report.stages import stages
from flowjax.report.table import JUDGED, LAYER, Table, judged, mean, tested_note
from flowjax.runs.analysis import Analysis
from flowjax.runs.page import page_of
from flowjax.runs.run import analyse
from flowjax_convert.run import convert
from flowjax_experiments.attention import Attention
from flowjax_experiments.evaluate import Evaluate
from flowjax_experiments.lens import Lens
from flowjax_experiments.probability import Probability
from flowjax_experiments.shapes import PAIR
from flowjax_experiments.sweep import Sweep

MODELS = ("image", "video")
WINDOW = 3
PER_TASK = 12
SHOWN = 3
"""Edges named per model and task, those whose window changes its right answers most."""


def run(out: Path, *, per_task: int = PER_TASK, overwrite: bool) -> None:
    """Make the inputs beside `out`, convert both models, sweep both, and draw into `out`.

    Raises:
        FlowjaxError: `out` exists and `overwrite` is not given, or cannot be written.
    """
    use_persistent_cache()
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())
    out = Path(os.path.realpath(out))
    inputs = out.with_name(f"{out.name}-inputs")
    for folder, sign in ((inputs, inputs / "shapes"), (out, out / MODELS[0])):
        with writing(folder):
            if not is_free(folder):
                if not overwrite or not sign.is_dir():
                    raise FlowjaxError(f"{folder} already exists; remove it or give another --out")
                for entry in folder.iterdir():
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    console.print(f"Making {per_task} videos of each of {len(VIDEO_TASKS)} tasks")
    write_benchmark(inputs / "shapes", split="test", per_task=per_task, tasks=tuple(VIDEO_TASKS))
    samples = read_benchmark(inputs / "shapes", tuple(VIDEO_TASKS))
    swept: dict[str, pa.Table] = {}
    answered: dict[str, pa.Table] = {}
    for name in MODELS:
        console.print(f"Converting the {name} model to Orbax, and sweeping its right answers")
        convert(PAIR / name, inputs / f"{name}-model")
        loaded = load_model(inputs / f"{name}-model")
        answered[name] = analyse(Evaluate(), loaded, samples, out / name / "answers").rows
        swept[name] = analyse(Sweep(window=WINDOW), loaded, samples, out / name / "sweep").rows
    console.print("Reading one answer of each task, layer by layer")
    last = MODELS[-1]
    shown = first_right(answered[last], samples)
    looked = look_at(load_model(inputs / f"{last}-model"), shown, out / last)
    report(swept, answered)
    path = draw_pair({f"{name} model": swept[name] for name in reversed(MODELS)}, out / "pair.png")
    page = page_of(
        [
            *((Sweep, out / name / "sweep") for name in MODELS),
            *looked,
            *((Evaluate, out / name / "answers") for name in MODELS),
        ]
    )
    print("\nWhat was found:")
    for sentence in sentences(swept, answered):
        print(f"- {sentence}")
    print()
    for name in MODELS:
        print(f"rows     {out / name / 'sweep' / 'results.parquet'} ({swept[name].num_rows})")
    print(f"figure   {path}")
    print(f"report   {page.save(out / 'report.html')}")


def first_right(answers: pa.Table, samples: Sequence[Sample]) -> list[Sample]:
    """The first sample of every task that is answered correctly."""
    right = set(answers.filter(answers["correct"])["sample_id"].to_pylist())
    found: dict[str, Sample] = {}
    for sample in samples:
        if sample.sample_id in right:
            found.setdefault(sample.task, sample)
    return list(found.values())


def look_at(
    loaded: LoadedModel, samples: Sequence[Sample], out: Path
) -> list[tuple[type[Analysis], Path]]:
    """Words, attention, options and cut tokens of some samples, for a page to show."""
    cut, tokens = "video->question", ("question_stem[*]->last", "question_stem[*]->options")
    analyses = {
        "lens": Lens(through="output", drawn=len(samples)),
        "attention": Attention(cut=cut, drawn=len(samples)),
        "probability": Probability(),
        "tokens": Sweep(edge=tokens, window=WINDOW),
    }
    for name, analysis in analyses.items():
        if samples:
            analyse(analysis, loaded, samples, out / name)
    return [(type(analysis), out / name) for name, analysis in analyses.items() if samples]


def sentences(swept: Mapping[str, pa.Table], answered: Mapping[str, pa.Table]) -> list[str]:
    """Who knows what, and the stages of the paper that each model's sweep shows over all tasks."""
    first, last = MODELS
    right = {name: sum(table["correct"].to_pylist()) for name, table in answered.items()}
    found = {name: stages(judged_curves(table)[0]) for name, table in swept.items()}
    absent = "; ".join(f"{at.stage.name}: {at.short}" for at in found[first])
    return [
        f"The {last} model answers {right[last]} of {answered[last].num_rows} questions rightly, "
        f"the {first} model {right[first]}.",
        *(
            f"{last.capitalize()} model, {at.stage.name} ({at.stage.what}): {at.sentence}"
            for at in found[last]
        ),
        f"{first.capitalize()} model: {absent}.",
    ]


def report(swept: Mapping[str, pa.Table], answered: Mapping[str, pa.Table]) -> None:
    """Print how well both models answer, and which edges their right answers need."""
    found = {name: {a.task: a for a in accuracies(table)} for name, table in answered.items()}
    rows = []
    for task in VIDEO_TASKS:
        of_models = [found[name][task].interval for name in MODELS]
        cells = [" ".join(mean(of, ".2f")) for of in of_models]
        rows.append([task, str(of_models[0].n), *cells, f"{found[MODELS[0]][task].chance:.2f}"])
    columns = [f"{name} model" for name in MODELS]
    Table("Accuracy on the test split", ["task"], ["n", *columns, "chance"], rows).print()
    rows = []
    for name in MODELS:
        tasks = grouped(swept[name], "task")
        of_tasks = dict(zip(tasks, strongest(*tasks.values()), strict=True))
        for task in VIDEO_TASKS:
            best = sorted(of_tasks.get(task, []), key=lambda edge: -abs(edge.interval.mean))
            for edge in best[:SHOWN]:
                at = edge.interval
                rows.append(
                    [name, task, edge.edge, str(at.n), str(edge.layer), *judged(at, "+.1f")]
                )
    Table(
        f"Windows of {WINDOW} layers that change the probability of right answers most",
        ["model", "task", "edge cut"],
        ["n", LAYER, "change %", *JUDGED],
        rows,
        tested_note("all windows of all edges and tasks of the same model"),
    ).print()
