"""A finished run, as its folder has it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowjax.errors import FlowjaxError
from flowjax.files import read_json


@dataclass(frozen=True, eq=False)
class Run:
    """The folder of a run, its rows and the settings in its manifest."""

    path: Path
    rows: pa.Table
    settings: dict[str, Any]


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
    path = run / "results.parquet"
    try:
        return Run(run, pq.read_table(path), settings)
    except FileNotFoundError:
        raise FlowjaxError(f"{path} is missing; {run} is not a finished run") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise FlowjaxError(f"{path} cannot be read: {error}") from None


def print_failures(run: Path) -> None:
    """Name the samples that could not be read, if there are any."""
    path = run / "failures.parquet"
    if not path.exists():
        return
    failures = pq.read_table(path).to_pylist()
    print(f"{len(failures)} samples could not be read and are left out:")
    for failure in failures:
        print(f"  {failure['sample_id']}: {failure['error']}")
