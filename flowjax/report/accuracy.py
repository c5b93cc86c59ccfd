"""How many questions are answered correctly, per task, with intervals."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowjax.report.arrays import grouped
from flowjax.report.statistics import Interval, proportion_interval
from flowjax.report.table import Table, mean


@dataclass(frozen=True)
class Accuracy:
    """Share of a task's questions answered correctly, and the share that guessing would get."""

    task: str
    interval: Interval
    chance: float


def accuracies(table: pa.Table) -> list[Accuracy]:
    """Accuracy of every task with options, in the order in which tasks first occur.

    table: has the columns task, options (their number; 0 of an open question) and correct.
    """
    found = []
    chosen = table.filter(pc.field("options") > 0)
    for task, rows in grouped(chosen, "task").items():
        interval = proportion_interval(sum(rows["correct"].to_pylist()), rows.num_rows)
        found.append(Accuracy(task, interval, float(np.mean(1 / rows["options"].to_numpy()))))
    return found


def accuracy_tables(table: pa.Table, title: str) -> list[Table]:
    """The accuracies as a table; none where no question has options."""
    rows = [
        [at.task, str(at.interval.n), *mean(at.interval, ".3f"), f"{at.chance:.3f}"]
        for at in accuracies(table)
    ]
    numbers = ["questions", "accuracy", "95% interval", "chance"]
    return [Table(title, ["task"], numbers, rows)] if rows else []
