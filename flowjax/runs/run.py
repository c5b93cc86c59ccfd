"""The one runner of every analysis: from a model and questions to rows, tables and figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import pyarrow as pa

from flowjax.asked.asked import Asked
from flowjax.compilation import use_persistent_cache
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.files import atomically, writing
from flowjax.hosts.replica import ALONE, Replica, replica
from flowjax.mesh import MeshShape
from flowjax.models.checkpoint import load_model
from flowjax.models.loaded import LoadedModel
from flowjax.platforms import check_backend
from flowjax.progress import Advance
from flowjax.report.accuracy import accuracy_tables
from flowjax.report.canvas import save_figure
from flowjax.report.paper import for_paper
from flowjax.report.table import Table
from flowjax.runs.analysis import Analysis
from flowjax.runs.answered import answered
from flowjax.runs.columns import make_table, shared_columns
from flowjax.runs.each_sample import AnswersFirst, Chosen, each_sample, is_chosen
from flowjax.runs.finished import Run, print_failures, read_run, read_settings
from flowjax.runs.made import Session
from flowjax.runs.selection import Selection
from flowjax.runs.store import Overwrite
from flowjax.runs.tables import read_table, write_table

EARLIER = {
    "information_flow": "sweep",
    "early_exit": "exit",
    "open_ended": "anchor",
    "pathways": "pathways evaluate",
    "pathways_find": "pathways find",
}
"""What analyses were called in the manifests of flowjax before 0.2."""

LATER = ("num_frames", "video_tokens", "f1")
"""Columns that rows of earlier versions lack and that nothing there need be drawn from."""


def run(
    analysis: Analysis,
    model: Path,
    questions: Selection,
    out: Path | None,
    *,
    overwrite: bool = False,
) -> Run:
    """What `run_part` does, in one process by itself.

    Raises:
        FlowjaxError: a bad input.
    """
    finished = run_part(analysis, model, questions, out, overwrite=overwrite)
    assert finished is not None, "a process by itself leads"
    return finished


def run_part(
    analysis: Analysis,
    model: Path,
    questions: Selection,
    out: Path | None,
    *,
    overwrite: bool = False,
    mesh: MeshShape | None = None,
) -> Run | None:
    """Analyse, keep rows and figures in the folder `out`, and print what was found.

    A run that was interrupted goes on after its last finished sample.

    Args:
        analysis: with its options.
        model: a converted model.
        questions: which are asked, and which of them count.
        out: the run's folder; None to print alone.
        overwrite: replace another run there.
        mesh: of all devices of all processes that were started together (`flowjax.hosts`).

    Returns:
        None on a process that does not lead, which prints nothing.

    Raises:
        FlowjaxError: a bad input.
    """
    if out is None and analysis.KEPT:
        raise FlowjaxError("missing --out: give the folder of the run")
    use_persistent_cache()
    check_backend()
    ours = replica(mesh)
    if ours.across and not analysis.ACROSS:
        raise FlowjaxError(
            f"--mesh {mesh}: `flowjax {analysis.name()}` reads what one process must hold whole; "
            f"give a model axis of at most {jax.local_device_count()}, the devices of one"
        )
    samples = analysis.samples(questions)
    loaded = load_model(model, mesh=ours.mesh)
    loaded = loaded.reading(questions.reading).asked_by(questions.prompt)
    told: list[pa.Table] = []

    def tell(accuracy: pa.Table) -> None:
        told.append(accuracy)
        _print_accuracy(accuracy)

    finished = analyse_part(
        ours,
        analysis,
        loaded,
        samples,
        out,
        chosen=questions.chosen(analysis.CHOSEN),
        drawn=questions.settings,
        strict=questions.strict or questions.one,
        overwrite=overwrite,
        tell=tell,
    )
    if finished is None:
        return None
    show(type(analysis), finished, kept=out is not None, answers=not told)
    return finished


def analyse(
    analysis: Analysis,
    loaded: LoadedModel,
    samples: Sequence[Sample],
    out: Path | None,
    *,
    chosen: Chosen | None = None,
    drawn: Mapping[str, Any] = MappingProxyType({}),
    strict: bool = True,
    overwrite: Overwrite = False,
    tell: Callable[[pa.Table], object] = lambda accuracy: None,
) -> Run:
    """Measure every sample that counts; keep their rows in the folder `out`, and print nothing.

    Args:
        analysis: with its options.
        loaded: the model.
        samples: in the order of the rows.
        out: the run's folder; None to keep nothing.
        chosen: which samples count; None for the analysis's own choice.
        drawn: how the samples were chosen at random, if they were.
        strict: a sample that cannot be read ends the run; otherwise it is recorded and skipped.
        overwrite: replace another run there; "other": only what of it differs.
        tell: called with how all samples are answered before anything is cut, by analyses that
            cut; with the columns of `flowjax.runs.answered.ACCURACY`.

    Raises:
        FlowjaxError: see `Analysis.start` and `each_sample`.
    """
    finished = analyse_part(
        ALONE,
        analysis,
        loaded,
        samples,
        out,
        chosen=chosen,
        drawn=drawn,
        strict=strict,
        overwrite=overwrite,
        tell=tell,
    )
    assert finished is not None, "a process by itself leads"
    return finished


def analyse_part(
    replica: Replica,
    analysis: Analysis,
    loaded: LoadedModel,
    samples: Sequence[Sample],
    out: Path | None,
    *,
    chosen: Chosen | None,
    drawn: Mapping[str, Any],
    strict: bool,
    overwrite: Overwrite,
    tell: Callable[[pa.Table], object],
) -> Run | None:
    """What `analyse` does, as one of several groups of processes.

    Returns:
        None on a process that does not lead.

    Raises:
        FlowjaxError: see `analyse`.
    """
    session = Session()
    counted = analysis.CHOSEN if chosen is None else chosen
    work = analysis.start(loaded, samples, counted)

    def saying(asked: Asked, rows: pa.Table, shared: Mapping[str, Any]) -> pa.Table:
        said = {name: shared[name] for name in ("sample_id", "task", "correct")}
        return answered(rows, said | {"options": len(asked.question.options)})

    def measure(asked: Asked, advance: Advance) -> pa.Table | None:
        measured = work.measure(asked, advance)
        if measured is None:
            return None
        shared = shared_columns(asked, measured.answer)
        if measured.answer is not None and not is_chosen(counted, shared["correct"]):
            session.add(None)
            rows = analysis.SCHEMA.empty_table()
        else:
            rows = make_table(measured.rows(), shared, analysis.SCHEMA)
            session.add(None if measured.flops is None else measured.flops())
        return rows if measured.answer is None else saying(asked, rows, shared)

    def answer(asked: Asked) -> tuple[pa.Table, bool]:
        measured = work.measure(asked, lambda part: None)
        assert measured is not None and measured.answer is not None
        shared = shared_columns(asked, measured.answer)
        counts = is_chosen(counted, shared["correct"])
        if not counts:
            session.add(None)
        return saying(asked, analysis.SCHEMA.empty_table(), shared), counts

    settings = {"analysis": analysis.name(), **analysis.settings(), **work.settings}
    results = each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=analysis.SCHEMA,
        settings={**settings, **drawn, "chosen": counted},
        order=analysis.order,
        is_open=analysis.OPEN,
        references=analysis.REFERENCES,
        strict=strict,
        overwrite=overwrite,
        first=AnswersFirst(answer, tell) if analysis.cuts else None,
        replica=replica,
    )
    counts = replica.gather(session.counts if replica.writes else Session().counts)
    if results is None:
        return None
    folder = Path("unkept") if out is None else out
    finished = Run(folder, results.rows, results.settings, results.failures)
    _check_rows(type(analysis), finished)
    analysis.finish(finished, loaded, samples)
    if out is not None:
        session.joined(counts).keep(out)
    return finished


def analysis_of(run: Path) -> object:
    """The name in a run's manifest of the analysis that made it, as it is called now.

    Raises:
        FlowjaxError: the folder is not a run.
    """
    settings = read_settings(run)
    if "analysis" in settings:
        return settings["analysis"]
    # A sweep was the only kind of run whose manifest named no experiment.
    name = settings.get("experiment", "information_flow")
    return EARLIER.get(name, name) if isinstance(name, str) else name


@dataclass(frozen=True)
class Drawing:
    """How figures are written.

    formats: some of `flowjax.report.canvas.FORMATS`.
    paper: at the width of a paper's columns, into a folder of their own.
    """

    formats: Sequence[str] = ("png",)
    paper: bool = False


def redraw(
    analysis: type[Analysis],
    path: Path,
    *,
    drawing: Drawing = Drawing(),
    reference: bool = False,
) -> None:
    """Print and draw a finished run again, from its folder alone.

    drawing: how.
    reference: write its rows as the records of the published code instead.

    Raises:
        FlowjaxError: see `read_again`.
    """
    finished = read_again(analysis, path)
    if not reference:
        show(analysis, finished, drawing=drawing)
        return
    for written in analysis.write_reference(finished):
        print(f"records  {written}")


def read_again(analysis: type[Analysis], path: Path) -> Run:
    """A finished run of an analysis, from its folder.

    Raises:
        FlowjaxError: the run is not finished, or was made by a version whose rows this one does
            not read.
    """
    finished = read_run(path)
    rows, schema = finished.rows.schema, analysis.SCHEMA
    names = dict.fromkeys([*rows.names, *schema.names])
    lacking = [n for n in LATER if n not in rows.names]
    other = [n for n in names if n not in rows.names or n not in schema.names]
    other = [n for n in other if n not in lacking]
    known = [n for n in names if n not in other and n not in lacking]
    other += [n for n in known if rows.field(n).type != schema.field(n).type]
    if other:
        raise FlowjaxError(
            f"{path / 'results.parquet'} was made by another version of flowjax, whose rows of "
            f"`flowjax {analysis.name()}` differ in {', '.join(other)}; run it again"
        )
    _check_rows(analysis, finished)
    return finished


def show(
    analysis: type[Analysis],
    run: Run,
    *,
    kept: bool = True,
    answers: bool = True,
    drawing: Drawing = Drawing(),
) -> None:
    """Print what is to be said of a run, and draw its figures.

    kept: whether it has a folder, so that figures are drawn and paths are named.
    answers: whether the accuracy of the samples asked has not been printed yet.
    drawing: how.

    Raises:
        FlowjaxError: a table or figure cannot be written; all else has been printed by then.
    """
    accuracy = run.path / "accuracy.parquet"
    if answers and (analysis.CUTS or analysis.CHOSEN != "all") and accuracy.exists():
        _print_accuracy(read_table(accuracy))
    report = analysis.report(run)
    for note in run.rows["model_note"].unique().to_pylist():
        if note:
            print(f"NOTE: {note}")
    for part in report.parts:
        part.print() if isinstance(part, Table) else print(part)
    print_failures(run.failures)
    if not kept:
        return
    print(f"\nrows     {run.path / 'results.parquet'} ({run.rows.num_rows})")
    for what, path in report.files.items():
        print(f"{what:8} {path}")
    for what, (name, table) in report.tables.items():
        path = run.path / f"{name}.parquet"
        with writing(path):
            write_table(path, table)
        print(f"{what:8} {path}")
    folder = run.path / "figures" / "paper" if drawing.paper else run.path / "figures"
    captions = []
    for name, figure in report.figures.items():
        if drawing.paper:
            captions.append(f"{name}: {for_paper(figure)}\n")
        for form in drawing.formats:
            print(f"figure   {save_figure(figure, folder / f'{name}.{form}')}")
    if captions:
        path, text = folder / "captions.txt", "\n".join(captions)
        with writing(path):
            atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        print(f"captions {path}")


def _print_accuracy(accuracy: pa.Table) -> None:
    """Of several samples; one has no accuracy."""
    if accuracy.num_rows > 1:
        for table in accuracy_tables(accuracy, "The model's own answers"):
            table.print()


def _check_rows(analysis: type[Analysis], run: Run) -> None:
    if not run.rows.num_rows:
        raise FlowjaxError(f"{run.path / 'results.parquet'} has no rows: {analysis.NO_ROWS}")
