"""Measure what `docs/findings.md` says, on both models of a trained pair.

    python -m flowjax_experiments.shapes.findings PAIR OUT --json FILE

Every part is one of the ordinary commands on the test split; OUT holds their runs, with the rows of
every sample and the figures, and FILE their summaries: means with 95% intervals and how many
samples they are over.
"""

import argparse
import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowjax.data.shapes.benchmark import write_benchmark
from flowjax.data.shapes.tasks import VIDEO_TASKS
from flowjax.platforms import skip_absent_tpu
from flowjax.report.arrays import by_sample
from flowjax.report.curves import curves
from flowjax.report.frontier import Frontier, frontier
from flowjax.report.pair import draw_pair
from flowjax.report.screen import agreement
from flowjax.report.statistics import Interval, mean_interval, paired_interval, proportion_interval
from flowjax_convert.run import convert
from flowjax_experiments import (
    early_exit,
    information_flow,
    lens,
    pathways_find,
    probability,
    screen,
)
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import read_results

MODELS = ("image", "video")
PER_TASK = 32
IMAGE_TASKS = ("image_colour", "image_count", "image_background")
"""Beside all tasks that need a video: those that the image model knows best."""

DRAWN = ("moving_direction", "action_antonym", "scene_transition", "image_colour", "image_count")
"""Tasks in the figure."""

LENS_PER_TASK, SCREEN_PER_TASK = 16, 10
THROUGH = ("input", "output")
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
    swept = {f"{name} model": read_results(out / name / "windows") for name in reversed(MODELS)}
    draw_pair(
        {name: rows.filter(pc.field("task").isin(DRAWN)) for name, rows in swept.items()},
        out / "windows.png",
    )
    found["video"]["pathways"] = _pathways(out)
    found["video"]["early exit"] = [
        dataclasses.asdict(rule) | {"thresholds": None}
        for rule in early_exit.run(
            early_exit.Asked(out / "video-model", _temporal(asked)), out / "video" / "exit",
            overwrite=False,
        )
    ]  # fmt: skip
    found["video"]["screen"] = _screen(out, asked)
    return found


def _temporal(asked: Selection, limit: int | None = None) -> Selection:
    return dataclasses.replace(asked, tasks=tuple(VIDEO_TASKS), limit=limit)


def _swept(model: Path, asked: Selection, out: Path, style: str) -> pa.Table:
    """Windows change right answers' probability; cuts up to a layer change all answers."""
    questions = asked if style == "center" else dataclasses.replace(asked, samples="all")
    sets = ("cross-frame", "vql-to-ql")
    asked_of = information_flow.Asked(
        model, questions, sets, EDGES, WINDOW, style, heads=None, memory=None, mesh=None
    )
    information_flow.run(asked_of, out, overwrite=False)
    return read_results(out)


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
        cut = by_sample(rows, "right", "centre").values
        full = by_sample(rows, "base", "centre").values
        out["all edges"] = _interval(proportion_interval(int(full[:, 0].sum()), len(full)))
        out[edge] = [
            {
                "accuracy": float(cut[:, i].mean()),
                "change": _interval(paired_interval(cut[:, i], full[:, i])),
            }
            for i in range(cut.shape[1])
        ]
    return out


def _lens(model: Path, asked: Selection, runs: Path, through: str) -> Summary:
    """Shares of positions with such words on top, and the commonest words, by task and layer."""
    of_lens = dataclasses.replace(asked, limit=LENS_PER_TASK)
    run = runs / f"lens-{through}"
    lens.run(lens.Asked(model, of_lens, through, top_k=1), run, overwrite=False)
    table = read_results(run)

    def summary(table: pa.Table) -> Summary:
        kinds = ("spatial", "temporal")
        shares = {
            kind: pc.cast(pc.greater_equal(table[f"{kind}_rank"], 0), pa.float64())  # pyright: ignore[reportAttributeAccessIssue] - its stubs lack generated functions
            for kind in kinds
        }
        out: Summary = {}
        for kind, share in shares.items():
            keys = ["sample_id", "layer"]
            means = (
                table.select(keys)
                .append_column("has", share)
                .group_by(keys, use_threads=False)
                .aggregate([("has", "mean")])
            )
            values = by_sample(means, "has_mean", "layer").values
            out[kind] = [_interval(mean_interval(values[:, i])) for i in range(values.shape[1])]
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
    found = probability.run(
        probability.Asked(model, _temporal(asked)), runs / "probability", overwrite=False
    )
    return [
        {"layer": at.layer, "true": _interval(at.true), "false": _interval(at.false)}
        for at in found
        if at.normed
    ]


def _pathways(out: Path) -> Summary:
    """Found on one half of the temporal questions, judged on the other; of each task, too."""
    run = out / "video" / "pathways"
    asked = pathways_find.Asked(
        out / "video-model", _temporal(Selection(data=out / "shapes")), out / "video" / "windows",
        thresholds=(), form="strict", tolerance=0.02, seeds=3,
    )  # fmt: skip
    found = pathways_find.run(asked, run, overwrite=False)
    table = read_results(run)
    second = set(table["sample_id"].to_pylist()) - set(_first_half(run))

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
        "chosen": dataclasses.asdict(found.pathway),
        "all": points(found.judged_on),
        "tasks": _by_task(
            table.filter(pc.field("sample_id").isin(sorted(second))),
            lambda rows: points(frontier(rows, rows["sample_id"].unique().to_pylist())),
        ),
    }


def _first_half(run: Path) -> Sequence[str]:
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    return manifest["settings"]["first half"]


def _screen(out: Path, asked: Selection) -> Summary:
    of_screen = screen.Asked(
        out / "video-model", _temporal(asked, SCREEN_PER_TASK), 20, True, "parts"
    )
    found = screen.run(of_screen, out / "video" / "screen", overwrite=False)
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
    return {"n": of.n} | {
        name: round(float(getattr(of, name)), 4) for name in ("mean", "low", "high")
    }


def _round(values: np.ndarray) -> list[float]:
    return [round(float(value), 2) for value in values]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure the findings on a pair.")
    parser.add_argument("pair", type=Path, help="folder with the checkpoints image and video")
    parser.add_argument("out", type=Path, help="new folder for the runs")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--per-task", type=int, default=PER_TASK)
    arguments = parser.parse_args()
    found = findings(arguments.pair, arguments.out, per_task=arguments.per_task)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    skip_absent_tpu()
    main()
