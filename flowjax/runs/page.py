"""One page of several finished runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowjax.errors import FlowjaxError
from flowjax.lens.pictures import read_pictures
from flowjax.report.page import sample
from flowjax.report.page.page import Page, make_page
from flowjax.report.page.section import LAST, Folded, Part, Section
from flowjax.report.table import Table
from flowjax.runs.analysis import Analysis
from flowjax.runs.finished import Run
from flowjax.runs.made import read_sessions
from flowjax.runs.run import read_again

LEAD = (
    "What is needed to make these results again, and what it took. A run that was interrupted and "
    "went on has several sessions; one that was killed is not among them."
)
ELSEWHERE = ("analysis", "model", "checkpoint", "dtype", "version", "samples", "chosen")
"""Settings that have a line of their own."""

SHORT = 300
"""Characters of a setting or an error that are shown."""

MOST_SAMPLES = 8
"""Samples that are shown."""

MOST_FAILURES = 50
"""Samples that are named."""


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
    shown = sample_section(found)
    if shown is not None:
        sections.append(shown)
    sections.append(made_section(found))
    runs = [run for own in found.values() for run in own]
    models = dict.fromkeys(m for run in runs for m in run.rows["model"].unique().to_pylist())
    notes = dict.fromkeys(n for run in runs for n in run.rows["model_note"].unique().to_pylist())
    title = f"Information flow in {' and '.join(models)}"
    return make_page(title, sections, [note for note in notes if note])


def sample_section(found: dict[type[Analysis], list[Run]]) -> Section | None:
    """The samples whose frames a run keeps, or else the first that a run shows something of.

    None where no run shows anything of a sample.
    """
    runs = [(analysis, run) for analysis, own in found.items() for run in own]
    kept = [pictures.sample_id for _, run in runs for pictures in read_pictures(run.path)]
    names = [n for n in dict.fromkeys(kept) if any(a.on_sample(r, n) for a, r in runs)]
    if not names:
        firsts = (run.rows["sample_id"][0].as_py() for _, run in runs)
        names = [name for name in firsts if any(a.on_sample(r, name) for a, r in runs)][:1]
    shown = [a.on_sample(run, name) for name in names[:MOST_SAMPLES] for a, run in runs]
    return sample.section(one for one in shown if one is not None)


def made_section(found: dict[type[Analysis], list[Run]]) -> Section:
    """How runs were made: model, questions, settings, command, machine, cost, failures."""
    parts: list[Part] = []
    for analysis, own in found.items():
        for run in own:
            title = f"flowjax {analysis.name()}: {run.path.name}"
            own_parts: list[Part] = [Table(title, ["what", "value"], [], _lines(run))]
            if run.failures.num_rows:
                own_parts.append(_failures(run))
            models = ", ".join(run.rows["model"].unique().to_pylist())
            parts.append(Folded(f"{title} ({models})", own_parts))
    return Section(LAST, "How it was made", LEAD, parts)


def _lines(run: Run) -> list[tuple[str, str]]:
    settings, rows = run.settings, run.rows
    tasks = [task for task in rows["task"].unique().to_pylist() if task]
    counted = len(rows["sample_id"].unique())
    chosen = {"correct": "answered correctly", "wrong": "answered wrongly"}
    which = chosen.get(str(settings.get("chosen")), "of any answer")
    asked = f"{settings.get('samples', '?')} asked, {counted} counted ({which})"
    if run.failures.num_rows:
        asked += f", {run.failures.num_rows} could not be read"
    lines = [
        ("model", f"{settings.get('model', '?')}, {settings.get('dtype', '?')}"),
        ("checkpoint", str(settings.get("checkpoint", "?"))),
        ("questions", asked + (f"; tasks: {', '.join(tasks)}" if tasks else "")),
    ]
    rest = {name: value for name, value in settings.items() if name not in ELSEWHERE}
    lines += [("settings", "; ".join(f"{name} {_short(rest[name])}" for name in sorted(rest)))]
    for session in read_sessions(run.path):
        lines += _session(session)
    if not read_sessions(run.path):
        lines.append(("versions", f"flowjax {settings.get('version', '?')}"))
    return [(name, value) for name, value in lines if value]


def _session(session: dict[str, Any]) -> list[tuple[str, str]]:
    """What the record of one process says; it is a file, and may say anything."""
    lines = [("command", str(session.get("command") or ""))]
    when = f"{session.get('started')}, {session.get('samples')} samples"
    lines.append(("time", f"{when} in {session.get('seconds')} s, compilation included"))
    flops = session.get("flops")
    naive, planned = (
        flops.get(name) if isinstance(flops, dict) else None for name in ("naive", "planned")
    )
    if isinstance(naive, int | float) and isinstance(planned, int | float) and planned > 0:
        less = f"{naive / planned:.1f} times less than {naive:.3g} of a forward per knockout"
        lines.append(("FLOPs", f"{planned:.3g} planned, {less}"))
    for name in ("hardware", "versions"):
        value = session.get(name)
        if isinstance(value, dict):
            lines.append((name, ", ".join(f"{what} {of}" for what, of in value.items())))
    return lines


def _failures(run: Run) -> Table:
    rows = [
        (row["sample_id"], row["task"], row["error"][:SHORT]) for row in run.failures.to_pylist()
    ]
    more = len(rows) - MOST_FAILURES
    note = f"and {more} more, in failures.parquet" if more > 0 else ""
    return Table("Not read", ["sample", "task", "why"], [], rows[:MOST_FAILURES], note)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHORT else text[:SHORT] + "..."
