"""Make the shapes benchmark, and measure what of it can be answered without its videos."""

import tempfile
from pathlib import Path

from flowjax.compilation import use_persistent_cache
from flowjax.data.benchmark import read_benchmark
from flowjax.data.frame_order import ORDERS
from flowjax.data.shapes.benchmark import TASKS, write_benchmark
from flowjax.report.table import Table, ends
from flowjax_experiments.shapes import PAIR
from flowjax_experiments.shapes.judge import by_order
from flowjax_experiments.shapes.leaks import measure, show


def make(out: Path, *, split: str, per_task: int, seed: int, leaks: bool, overwrite: bool) -> None:
    """Write the benchmark and say what it holds.

    Raises:
        FlowjaxError: see `write_benchmark`.
    """
    use_persistent_cache()
    write_benchmark(out, split=split, per_task=per_task, seed=seed, overwrite=overwrite)
    print(f"{len(TASKS)} tasks of {per_task} questions in {out}: {', '.join(TASKS)}")
    if leaks:
        show(measure(out))
        show_orders(out)


def show_orders(benchmark: Path) -> None:
    """Print the shipped video model's accuracy with frames as they are and in other orders.

    Raises:
        FlowjaxError: the benchmark cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = by_order(PAIR / "video", read_benchmark(benchmark, TASKS), Path(folder) / "video")
    rows = [
        [of_task[0].task, *(f"{of.interval.mean:.2f} {ends(of.interval, '.2f')}" for of in of_task)]
        for of_task in zip(*found.values(), strict=True)
    ]
    Table("The shipped video model, by the order of frames", ["task"], ORDERS, rows).print()
