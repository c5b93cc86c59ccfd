"""One page of several finished runs."""

from collections.abc import Sequence
from pathlib import Path

from flowjax.errors import FlowjaxError
from flowjax.report.page.page import Page, make_page
from flowjax.runs.analysis import Analysis
from flowjax.runs.finished import Run
from flowjax.runs.run import read_again


def page_of(runs: Sequence[tuple[type[Analysis], Path]]) -> Page:
    """A page of some runs, from their folders alone.

    Args:
        runs: each with the analysis that made it; a run given twice counts once.

    Raises:
        FlowjaxError: there is none, or see `read_again` and `Analysis.sections`.
    """
    if not runs:
        raise FlowjaxError("give at least one run")
    found: dict[type[Analysis], list[Run]] = {}
    for analysis, path in dict.fromkeys(runs):
        found.setdefault(analysis, []).append(read_again(analysis, path))
    return page_of_runs(found)


def page_of_runs(found: dict[type[Analysis], list[Run]]) -> Page:
    """A page of finished runs, by their analysis.

    Raises:
        FlowjaxError: see `Analysis.sections`.
    """
    sections = [section for analysis, own in found.items() for section in analysis.sections(own)]
    runs = [run for own in found.values() for run in own]
    models = dict.fromkeys(m for run in runs for m in run.rows["model"].unique().to_pylist())
    notes = dict.fromkeys(n for run in runs for n in run.rows["model_note"].unique().to_pylist())
    title = f"Information flow in {', '.join(models)}"
    return make_page(title, sections, [note for note in notes if note])
