"""Measure what `docs/findings.md` says, on both models of a trained pair.

    python -m flowjax_experiments.shapes.findings PAIR OUT --json FILE

Every part is one of the ordinary commands on the test split; OUT holds their runs, with the rows of
every sample and the figures, and FILE their summaries: means with 95% intervals and how many
samples they are over.
"""

import argparse
import dataclasses
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowjax.data.shapes.benchmark import write_benchmark
from flowjax.data.shapes.tasks import VIDEO_TASKS
from flowjax.lens.project import Through
from flowjax.platforms import skip_absent_tpu
from flowjax.report.arrays import by_sample
from flowjax.report.curves import curves
from flowjax.report.pair import draw_pair
from flowjax.report.statistics import Interval, paired_interval, proportion_interval
from flowjax.runs.finished import read_run
from flowjax.runs.halves import halves
from flowjax.runs.run import run
from flowjax.runs.selection import Selection
from flowjax_convert.run import convert
from flowjax_experiments.exit import JUDGED, Exit, Readings, judge
from flowjax_experiments.lens import Lens, word_shares
from flowjax_experiments.pathways.find import Find, Frontier, Halves, frontier
from flowjax_experiments.probability import Probability, layer_probabilities
from flowjax_experiments.screen import EXACT, Screen, agreement, screened
from flowjax_experiments.sweep import Sweep

MODELS = ("image", "video")
PER_TASK = 32
IMAGE_TASKS = ("image_colour", "image_count", "image_background")
"""Beside all tasks that need a video: those that the image model knows best."""

DRAWN = ("moving_direction", "action_antonym", "scene_transition", "image_colour", "image_count")
"""Tasks in the figure."""

LENS_PER_TASK, SCREEN_PER_TASK = 16, 10
THROUGH: tuple[Through, ...] = ("input", "output")
WINDOW = 3
EDGES = (
    "video->question_stem",
    "video->options",
    "question_stem->options",
    "question_stem->last",
    "options->last",
)
"""Beside the paper's: the question's stem apart from its options."""

Summary = dict[str, Any]


def findings(pair: Path, out: Path, *, per_task: int = PER_TASK) -> Summary:
    """Run everything.

    Args:
        pair: a folder with the checkpoints `image` and `video`.
        out: a new folder.
        per_task: test questions of each task.

    Raises:
        FlowjaxError: `out` is there already, or the checkpoints cannot be read.
    """
    tasks = (*VIDEO_TASKS, *IMAGE_TASKS)
    write_benchmark(out / "shapes", split="test", per_task=per_task, tasks=tasks, seed=0)
    asked = Selection(data=out / "shapes", tasks=tasks)
    found: Summary = {"split": "test", "per_task": per_task, "window": WINDOW}
    for name in MODELS:
        model, runs = out / f"{name}-model", out / name
        convert(pair / name, model)
        found[name] = {
            "windows": _by_task(_swept(model, asked, runs / "windows", "center"), _windows),
            "cut up to a layer": _by_task(
                _swept(model, asked, runs / "bottom-up", "bottom_up"), _accuracies
            ),
            "lens": {through: _lens(model, asked, runs, through) for through in THROUGH},
            "probability": _probability(model, asked, runs),
        }
    swept = {f"{name} model": read_run(out / name / "windows").rows for name in reversed(MODELS)}
    draw_pair(
        {name: rows.filter(pc.field("task").isin(DRAWN)) for name, rows in swept.items()},
        out / "windows.png",
    )
    found["video"]["pathways"] = _pathways(out)
    exits = run(Exit(), out / "video-model", _temporal(asked), out / "video" / "exit")
    readings = Readings.of(exits.rows)
    found["video"]["early exit"] = [
        {"tolerance": rule.tolerance} | {name: _interval(getattr(rule, name)) for name in JUDGED}
        for rule in judge(*(readings.among(half) for half in halves(readings.samples)))
    ]
    found["video"]["screen"] = _screen(out, asked)
    return found


def _temporal(asked: Selection, limit: int | None = None) -> Selection:
    return dataclasses.replace(asked, tasks=tuple(VIDEO_TASKS), limit=limit)


def _swept(model: Path, asked: Selection, out: Path, style: str) -> pa.Table:
    """Windows change right answers' probability; cuts up to a layer change all answers."""
    questions = asked if style == "center" else dataclasses.replace(asked, samples="all")
    sets = ("cross-frame", "vql-to-ql")
    return run(Sweep(sets, EDGES, window=WINDOW, style=style), model, questions, out).rows


def _by_task(table: pa.Table, summary: Callable[[pa.Table], Summary]) -> Summary:
    return {
        task: summary(table.filter(pc.field("task") == task))
        for task in table["task"].unique().to_pylist()
    }


def _windows(table: pa.Table) -> Summary:
    """Relative change of right answers' probability in percent, by edge and layer from 1."""
    return {
        curve.edge: {
            "n": curve.samples,
            "mean": _round(curve.mean),
            "low": _round(curve.low),
            "high": _round(curve.high),
        }
        for curve in curves(table)
    }


def _accuracies(table: pa.Table) -> Summary:
    """Accuracy with an edge cut in layers 1 to i, and its paired change, by edge and i."""
    right = pc.cast(pc.equal(table["new_answer"], table["true_answer"]), pa.float64())  # pyright: ignore[reportAttributeAccessIssue] - its stubs lack generated functions
    base = pc.cast(table["correct"], pa.float64())
    table = table.append_column("right", right).append_column("base", base)
    out: Summary = {}
    for edge in table["edge"].unique().to_pylist():
        rows = table.filter(pc.field("edge") == edge)
        cut = by_sample(rows, "right", "centre").values.astype(bool)
        full = by_sample(rows, "base", "centre").values.astype(bool)
        out["all edges"] = _interval(proportion_interval(int(full[:, 0].sum()), len(full)))
        out[edge] = [
            {
                "accuracy": float(cut[:, i].mean()),
                "change": _interval(paired_interval(cut[:, i], full[:, i])),
            }
            for i in range(cut.shape[1])
        ]
    return out


def _lens(model: Path, asked: Selection, runs: Path, through: Through) -> Summary:
    """Shares of positions with such words on top, and the commonest words, by task and layer."""
    of_lens = dataclasses.replace(asked, limit=LENS_PER_TASK)
    out = runs / f"lens-{through}"
    table = run(Lens(through=through, top_k=1), model, of_lens, out).rows

    def summary(table: pa.Table) -> Summary:
        out: Summary = {}
        for at in word_shares(table):
            out.setdefault(at.kind, []).append(_interval(at.share))
        top = pc.list_element(table["tokens"], 0)  # pyright: ignore[reportAttributeAccessIssue] - its stubs lack generated functions
        layers = table["layer"].to_pylist()
        words = top.to_pylist()
        counts: dict[int, Counter[str]] = defaultdict(Counter)
        for word, layer in zip(words, layers, strict=True):
            counts[layer][word] += 1
        out["words"] = [counts[layer].most_common(5) for layer in sorted(counts)]
        return out

    return _by_task(table, summary)


def _probability(model: Path, asked: Selection, runs: Path) -> list[Summary]:
    rows = run(Probability(), model, _temporal(asked), runs / "probability").rows
    return [
        {"layer": at.layer, "true": _interval(at.true), "false": _interval(at.false)}
        for at in layer_probabilities(rows)
        if at.normed
    ]


def _pathways(out: Path) -> Summary:
    """Found on one half of the temporal questions, judged on the other; of each task, too."""
    model, runs = out / "video-model", out / "video"
    asked = _temporal(Selection(data=out / "shapes"))
    finished = run(Find(sweep=runs / "windows", seeds=3), model, asked, runs / "pathways")
    found, table = Halves.of(finished), finished.rows
    second = set(table["sample_id"].to_pylist()) - set(finished.settings["first half"])

    def points(of: Frontier) -> Summary:
        return {"full": _interval(of.full)} | {
            point.name: {
                "kept": point.kept,
                "accuracy": _interval(point.accuracy),
                "change": _interval(point.change),
                "random": None if point.random is None else _interval(point.random),
                "pathway - random": None if point.gap is None else _interval(point.gap),
            }
            for point in of.points
        }

    return {
        "chosen": dataclasses.asdict(found.chosen),
        "all": points(found.second),
        "tasks": _by_task(
            table.filter(pc.field("sample_id").isin(sorted(second))),
            lambda rows: points(frontier(rows, rows["sample_id"].unique().to_pylist())),
        ),
    }


def _screen(out: Path, asked: Selection) -> Summary:
    folder = out / "video" / "screen"
    run(Screen(top=20), out / "video-model", _temporal(asked, SCREEN_PER_TASK), folder)
    found = screened(read_run(folder / EXACT).rows)
    return {
        "gates": [
            {
                "edge": at.gate.edge,
                "layer": at.gate.layer + 1,
                "head": at.gate.head,
                "chosen": at.chosen,
                "predicted": _interval(at.predicted),
                "exact": _interval(at.exact),
            }
            for at in found
        ],
        "rank correlation": {
            kind: dataclasses.asdict(agreement(found, kind)) for kind in ("top", "random")
        },
    }


def _interval(of: Interval) -> Summary:
    return {"n": of.n} | {name: _known(getattr(of, name), 4) for name in ("mean", "low", "high")}


def _round(values: np.ndarray) -> list[float | None]:
    return [_known(float(value), 2) for value in values]


def _known(value: float, digits: int) -> float | None:
    """Too few samples have no interval, and JSON has no NaN."""
    return None if math.isnan(value) else round(value, digits)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure the findings on a pair.")
    parser.add_argument("pair", type=Path, help="folder with the checkpoints image and video")
    parser.add_argument("out", type=Path, help="new folder for the runs")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--per-task", type=int, default=PER_TASK)
    arguments = parser.parse_args()
    found = findings(arguments.pair, arguments.out, per_task=arguments.per_task)
    arguments.json.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    skip_absent_tpu()
    main()
