"""Judge the pair on the test split, and write the figures of its model card.

    python -m flowjax_experiments.shapes.judge PAIR --json FILE

Accuracy per task with 95% intervals, of both models, with frames as they are, shuffled, reversed,
and one frame repeated; and the leaks that trained probes find in the benchmark.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowjax.compilation import use_persistent_cache
from flowjax.data.benchmark import read_benchmark
from flowjax.data.frame_order import ORDERS
from flowjax.data.sample import Sample
from flowjax.data.shapes.benchmark import TASKS, write_benchmark
from flowjax.models.checkpoint import load_model
from flowjax.platforms import skip_absent_tpu
from flowjax.report.accuracy import Accuracy, accuracies
from flowjax.report.table import Table
from flowjax.runs.run import analyse
from flowjax_convert.run import convert
from flowjax_experiments.evaluate import Evaluate
from flowjax_experiments.shapes.leaks import measure

PER_TASK = 200
MODELS = ("image", "video")


def judge(pair: Path, *, per_task: int = PER_TASK, seed: int = 0) -> dict[str, Any]:
    """All figures of the card, as JSON values.

    Args:
        pair: a folder with the checkpoints `image` and `video`.
        per_task: test questions of each task.
        seed: of the benchmark.

    Raises:
        FlowjaxError: the checkpoints cannot be read.
    """
    use_persistent_cache()
    found: dict[str, Any] = {"split": "test", "per_task": per_task, "seed": seed}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_benchmark(folder / "shapes", split="test", per_task=per_task, seed=seed)
        samples = read_benchmark(folder / "shapes", TASKS)
        for model in MODELS:
            for order, found_in in by_order(pair / model, samples, folder / model).items():
                found[f"{model} model, frames {order}"] = {
                    of.task: asdict(of.interval) | {"chance": of.chance} for of in found_in
                }
        leaks = measure(folder / "shapes")
        for kind in ("question", "frame"):
            found[f"probe, {kind}"] = {
                leak.task: asdict(getattr(leak, kind)) | {"chance": leak.chance} for leak in leaks
            }
    return found


def by_order(
    checkpoint: Path, samples: Sequence[Sample], folder: Path
) -> dict[str, list[Accuracy]]:
    """Accuracy per task for each order of the frames; works in a new folder.

    Raises:
        FlowjaxError: the checkpoint cannot be read.
    """
    convert(checkpoint, folder / "model")
    loaded = load_model(folder / "model")
    return {
        order: accuracies(analyse(Evaluate(frames=order), loaded, samples, folder / order).rows)
        for order in ORDERS
    }


def show(found: dict[str, Any]) -> None:
    """Print a table of everything."""
    kinds = [name for name, value in found.items() if isinstance(value, dict)]
    rows = []
    for task in TASKS:
        cells = [
            f"{of['mean']:.3f} [{of['low']:.3f}, {of['high']:.3f}]"
            for of in (found[kind][task] for kind in kinds)
        ]
        rows += [[task, kind, cell] for kind, cell in zip(kinds, cells, strict=True)]
    Table(f"Accuracy, n = {found['per_task']}", ["task", "who"], ["accuracy"], rows).print()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Judge the shapes pair.")
    parser.add_argument("pair", type=Path, help="folder with the checkpoints image and video")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--per-task", type=int, default=PER_TASK)
    arguments = parser.parse_args()
    found = judge(arguments.pair, per_task=arguments.per_task)
    show(found)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    skip_absent_tpu()
    main()
