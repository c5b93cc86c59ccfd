"""What holds of the controls: tested effects of knockouts, from the rows of `side_by_side`.

python -m flowjax_experiments.shapes.controls_table ROWS.parquet --json FILE
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from flowjax.data.shapes.tasks import VIDEO_TASKS
from flowjax.report.sign_flips import adjusted_p
from flowjax.report.statistics import (
    Interval,
    mean_interval,
    paired_interval,
    proportion_interval,
)
from flowjax.report.table import Table, ends

CROSS = "cross_frame"
TASKS = tuple(VIDEO_TASKS)


def answers(rows: pa.Table) -> dict[tuple[str, int, int], tuple[np.ndarray, np.ndarray]]:
    """Of one model and task: whether each question is right and its true letter's probability.

    By edge cut and layers, in the questions' order.
    """
    found = {}
    for cut, first, last in {tuple(row.values()) for row in rows.select(
        ["cut", "first", "last"]).to_pylist()}:  # fmt: skip
        some = rows.filter(
            (pc.field("cut") == cut) & (pc.field("first") == first) & (pc.field("last") == last)
        ).sort_by("question")
        found[cut, first, last] = some["right"].to_numpy(), some["probability"].to_numpy()
    return found


def of_model(rows: pa.Table, tasks: tuple[str, ...] = TASKS) -> dict[str, Any]:
    """A model's accuracies, and its effects tested together.

    Effects: what cutting cross-frame edges in all layers, the first and the second half changes of
    accuracy, and what every window changes of the probability of right answers (in percent).
    """
    accuracy: dict[str, Interval] = {}
    names: list[tuple[str, str, int, int]] = []
    intervals: list[Interval] = []
    columns: list[Float[np.ndarray, " n"]] = []
    for task in tasks:
        of_task = answers(rows.filter(pc.field("task") == task))
        right, probability = of_task.pop(("", 1, 1))
        accuracy[task] = proportion_interval(int(right.sum()), len(right))
        half = max(last for _, _, last in of_task) // 2
        whole = {(CROSS, 1, 2 * half), (CROSS, 1, half), (CROSS, half + 1, 2 * half)}
        for key, (new, changed) in sorted(of_task.items()):
            if key in whole:
                intervals.append(paired_interval(new, right))
                columns.append(new.astype(float) - right)
            elif right.sum() > 1:
                percent = 100 * (changed / probability - 1)
                intervals.append(mean_interval(percent[right]))
                columns.append(np.where(right, percent, np.nan))
            else:
                continue
            names.append((task, *key))
    p = adjusted_p(np.stack(columns, axis=1))
    effects: dict[str, Any] = {task: {} for task in tasks}
    for (task, cut, first, last), interval, own in zip(names, intervals, p, strict=True):
        effects[task][f"{cut} {first}-{last}"] = asdict(replace(interval, p=float(own)))
    return {"accuracy": {task: asdict(of) for task, of in accuracy.items()}, "effects": effects}


def table_of(found: dict[str, Any], task: str) -> Table:
    """Accuracy on one task, and with cross-frame edges cut in all layers and in either half."""
    rows = []
    for model, of in found.items():
        effects = of["effects"][task]
        cuts = [name for name in effects if name.startswith(CROSS)]
        last = max(int(name.split("-")[-1]) for name in cuts)
        half = last // 2
        cells = [f"{of['accuracy'][task]['mean']:.3f}"]
        for name in (f"{CROSS} 1-{last}", f"{CROSS} 1-{half}", f"{CROSS} {half + 1}-{last}"):
            interval = Interval(**effects[name])
            star = "*" if interval.is_effect else ""
            cells.append(f"{interval.mean:+.3f} {ends(interval, '+.2f')}{star}")
        rows.append([model, *cells])
    return Table(
        f"{task}: accuracy, and its change with cross-frame edges cut (*: an effect)",
        ["model"],
        ["accuracy", "all layers", "first half", "second half"],
        rows,
    )


def summarise(rows: pa.Table) -> dict[str, Any]:
    """`of_model` of every model in the rows."""
    flat = rows.set_column(0, "model", rows["model"].cast(pa.string()))
    flat = flat.set_column(1, "task", flat["task"].cast(pa.string()))
    flat = flat.set_column(3, "cut", flat["cut"].cast(pa.string()))
    models = list(dict.fromkeys(flat["model"].to_pylist()))
    return {name: of_model(flat.filter(pc.field("model") == name)) for name in models}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Effects in the controls, tested.")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = summarise(pq.read_table(arguments.rows))
    for task in TASKS:
        table_of(found, task).print()
    if arguments.json is not None:
        text = json.dumps(found, indent=1, allow_nan=True)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
