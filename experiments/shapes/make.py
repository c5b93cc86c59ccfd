"""Make the shapes benchmark, and measure what of it can be answered without its videos."""

from pathlib import Path

from experiments.shapes.leaks import measure, show
from flowjax.compilation import use_persistent_cache
from flowjax.data.shapes.benchmark import TASKS, write_benchmark


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
