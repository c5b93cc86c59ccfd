"""`flowjax report`."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.cli.options import remote


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of finished runs, or gs://.", parser=remote, metavar="RUN..."),
    ],
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
) -> None:
    """Write one HTML file of what runs found: the flow map, samples, curves, how it was made."""
    from flowjax.cli.analyses import analysis_named
    from flowjax.runs.page import page_of

    page = page_of([(analysis_named(run), run) for run in runs])
    print(f"report   {page.save(out)}")
