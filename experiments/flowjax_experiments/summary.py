"""What every experiment prints of a finished run: its rows are there, and what was left out."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flowjax.errors import FlowjaxError


def read_results(run: Path) -> pa.Table:
    """The rows of a finished run.

    Raises:
        FlowjaxError: the folder has no `results.parquet` that can be read, or it has no rows.
    """
    path = run / "results.parquet"
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise FlowjaxError(f"{path} is missing; {run} is not a finished run") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise FlowjaxError(f"{path} cannot be read: {error}") from None
    if not table.num_rows:
        raise FlowjaxError(
            f"{path} has no rows: no sample was answered as --samples asks; --samples all takes "
            "every one"
        )
    return table


def print_failures(run: Path) -> None:
    """Name the samples that could not be read, if there are any."""
    path = run / "failures.parquet"
    if not path.exists():
        return
    failures = pq.read_table(path).to_pylist()
    print(f"{len(failures)} samples could not be read and are left out:")
    for failure in failures:
        print(f"  {failure['sample_id']}: {failure['error']}")
