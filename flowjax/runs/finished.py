"""A finished run, as its folder has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.runs.store import FAILURES
from flowjax.runs.tables import read_table


@dataclass(frozen=True, eq=False)
class Run:
    """A run's rows and settings, and the folder that keeps them.

    path: the folder; of a run that is printed alone there is none at this path.
    settings: as its manifest has them.
    failures: with the columns `FAILURES`, the samples that could not be read.
    """

    path: Path
    rows: pa.Table
    settings: dict[str, Any]
    failures: pa.Table


def read_settings(run: Path) -> dict[str, Any]:
    """What a run was asked, from its manifest.

    Raises:
        FlowjaxError: the folder has no manifest of a run.
    """
    settings = read_json(run / "manifest.json").get("settings")
    if not isinstance(settings, dict):
        raise FlowjaxError(f"{run / 'manifest.json'}: not the manifest of a flowjax run")
    return settings


def read_run(run: Path) -> Run:
    """A finished run.

    Raises:
        FlowjaxError: the folder has no manifest, or no `results.parquet` that can be read.
    """
    settings = read_settings(run)
    path, failed = run / "results.parquet", run / "failures.parquet"
    try:
        rows = read_table(path)
    except FileNotFoundError:
        raise FlowjaxError(f"{path} is missing; {run} is not a finished run") from None
    failures = read_table(failed) if failed.exists() else FAILURES.empty_table()
    return Run(run, rows, settings, failures)


def run_labels(runs: Sequence[Run]) -> list[str]:
    """What each is called: its model, and its folder where several are of one model."""
    models = [", ".join(run.rows["model"].unique().to_pylist()) for run in runs]
    return [
        model if models.count(model) == 1 else f"{model} ({run.path.name})"
        for model, run in zip(models, runs, strict=True)
    ]


def print_failures(failures: pa.Table) -> None:
    """Name the samples that could not be read, if there are any."""
    if not failures.num_rows:
        return
    print(f"{failures.num_rows} samples could not be read and are left out:")
    for failure in failures.to_pylist():
        print(f"  {failure['sample_id']}: {failure['error']}")
