"""Commands made from analyses: every `Analysis` in `flowjax_experiments` is one.

A file's path names its command: `pathways/find.py` is `flowjax pathways find`. What `--help` lists
is read from the files' text; an analysis is imported when it runs.
"""

import dataclasses
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin

import typer
from typer.core import TyperGroup

from flowjax.cli.options import (
    Coordinator,
    Fps,
    Frames,
    MaxPixels,
    Model,
    NumProcesses,
    Overwrite,
    ProcessId,
    Prompt,
    as_one_of,
    remote,
)
from flowjax.errors import FlowjaxError

if TYPE_CHECKING:
    from flowjax.hosts.detect import Processes
    from flowjax.mesh import MeshShape
    from flowjax.runs.analysis import Analysis, OptionField

PACKAGE = "flowjax_experiments"
DEFINED = re.compile(r'^class (\w+)\(Analysis\):\n    """(.+?)\.?(?:\n|""")', re.MULTILINE)


class Found(NamedTuple):
    """Where an analysis is: its module, its class, and the first line of its docstring."""

    module: str
    cls: str
    help: str

    def load(self) -> "type[Analysis]":
        """The analysis."""
        return getattr(importlib.import_module(self.module), self.cls)


def find_analyses() -> dict[str, Found]:
    """Every analysis by its name, such as `sweep` or `pathways find`."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations is not None
    (root,) = map(Path, spec.submodule_search_locations)
    found = {}
    for file in sorted(root.rglob("*.py")):
        match = DEFINED.search(file.read_text(encoding="utf-8"))
        if match is not None:
            parts = file.relative_to(root).with_suffix("").parts
            found[" ".join(parts)] = Found(".".join((PACKAGE, *parts)), *match.groups())
    return found


class AnalysisGroup(TyperGroup):
    """A group with the analyses whose names begin with its own, beside its other commands."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer hides click's types
        """The analyses first."""
        own = [name for name in map(self._below, find_analyses()) if name is not None]
        return list(dict.fromkeys([*own, *super().list_commands(ctx)]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - typer hides click's
        """For help alone: it takes no arguments."""
        command = super().get_command(ctx, cmd_name)
        found = find_analyses().get(self._full(cmd_name))
        if command is not None or found is None:
            return command
        return _command(cmd_name, lambda: None, found.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - as above
        """The command that runs."""
        name, command, rest = super().resolve_command(ctx, args)
        found = find_analyses().get(self._full(name))
        if name is not None and found is not None:
            command = _command(name, command_of(found.load()), found.help)
        return name, command, rest

    def _full(self, name: str | None) -> str:
        return f"{self._prefix}{name}"

    @property
    def _prefix(self) -> str:
        return "" if self.name in (None, "flowjax") else f"{self.name} "

    def _below(self, name: str) -> str | None:
        rest = name.removeprefix(self._prefix)
        return rest if name.startswith(self._prefix) and " " not in rest else None


def _command(name: str, function: Callable[..., Any], said: str) -> Any:  # noqa: ANN401 - click's
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, help=f"{said}.")(function)
    return typer.main.get_command(app)


def choosing(
    data: Annotated[
        Path | None,
        typer.Option(
            help="A benchmark's folder as published, or what `flowjax prepare` made of it (which "
            "may be at gs://), or a table of questions.",
            parser=remote,
            metavar="PATH",
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task of it; may be repeated. Default: all.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many questions per task.")] = None,
    sample_size: Annotated[
        int | None, typer.Option(help="So many questions per task, drawn at random.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of --sample-size. Default: 0.")] = None,
    samples: Annotated[
        str | None, typer.Option(help="correct, wrong or all, by the model's own answer.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first video that cannot be read.")
    ] = False,
    video: Annotated[Path | None, typer.Option(help="A video file, for one question.")] = None,
    question: Annotated[str | None, typer.Option(help="The question, without its options.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option; give one per option, in order.")
    ] = None,
    answer: Annotated[str | None, typer.Option(help="Letter of the true option.")] = None,
    num_frames: Frames = None,
    fps: Fps = None,
    max_pixels: MaxPixels = None,
    prompt: Prompt = None,
) -> dict[str, Any]:
    """The options that choose questions and how they are asked, as fields of `Selection`."""
    from flowjax.data.video_options import VideoOptions

    return {
        "data": data,
        "tasks": tuple(task or ()),
        "limit": limit,
        "sample_size": sample_size,
        "seed": seed,
        "samples": samples,
        "strict": strict,
        "video": video,
        "question": question,
        "options": tuple(option or ()),
        "answer": answer,
        "reading": VideoOptions(num_frames, fps, max_pixels),
        "prompt": prompt,
    }


def placing(
    mesh: Annotated[
        str | None,
        typer.Option(
            help="All devices, such as data=4,model=2: samples over data, and windows within a "
            "host; every copy of the model over model devices."
        ),
    ] = None,
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
) -> "tuple[MeshShape | None, Processes | None]":
    """The options that say where a run is computed."""
    from flowjax.hosts.detect import processes
    from flowjax.mesh import MeshShape

    shape = None if mesh is None else MeshShape.parse(mesh)
    return shape, processes(coordinator, num_processes, process_id)


def command_of(analysis: "type[Analysis]") -> Callable[..., None]:
    """A function whose parameters are the model, the questions, the folder and the options."""
    fields = analysis.options()
    questions = inspect.signature(choosing).parameters
    places = inspect.signature(placing).parameters

    def run(**given: Any) -> None:  # noqa: ANN401 - typer's
        from flowjax.runs.run import run_part
        from flowjax.runs.selection import Selection

        chosen = choosing(**{name: given[name] for name in questions})
        own = {}
        for field in fields:
            value = given[field.name]
            own[field.name] = tuple(value or ()) if get_origin(field.kind) is tuple else value
        asked, selection = analysis(**own), Selection(**chosen, is_open=analysis.OPEN)
        if asked.preview(given["model"], selection):
            return
        mesh, started = placing(**{name: given[name] for name in places})
        out, overwrite = given["out"], given["overwrite"]
        as_one_of(
            started,
            lambda: run_part(asked, given["model"], selection, out, overwrite=overwrite, mesh=mesh),
        )

    said = "Folder of the run" + ("." if analysis.KEPT else "; without one it is printed alone.")
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("model", keyword, annotation=Model),
        *(_parameter(field) for field in fields if field.option.positional),
        *(value.replace(kind=keyword) for value in questions.values()),
        inspect.Parameter(
            "out",
            keyword,
            annotation=Annotated[
                Path | None, typer.Option(help=said, parser=remote, metavar="PATH")
            ],
            default=None,
        ),
        *(_parameter(field) for field in fields if not field.option.positional),
        *(value.replace(kind=keyword) for value in places.values()),
        inspect.Parameter("overwrite", keyword, annotation=Overwrite, default=False),
    ]
    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess] - inspect reads it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(field: "OptionField") -> inspect.Parameter:
    """As typer reads it: lists for tuples, text for choices, which the analysis checks."""
    kind, default, option = field.kind, field.default, field.option
    several = get_origin(kind) is tuple
    if several:
        kind = list[get_args(kind)[0]] | None
        default = None
    elif field.choices:
        kind = str if get_origin(kind) is Literal else str | None
    said = option.help + (" May be repeated." if several else "")
    flags = [] if option.flag is None else [option.flag]
    info = typer.Argument(help=said) if option.positional else typer.Option(*flags, help=said)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, info],
        **({} if default is dataclasses.MISSING else {"default": default}),
    )


def figures(
    run: Annotated[
        Path,
        typer.Argument(help="The folder of a finished run.", parser=remote, metavar="RUN"),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="png, pdf or svg, or several as pdf,svg; or reference: a sweep's rows as the "
            "published code's JSON.",
        ),
    ] = "png",
    style: Annotated[
        str,
        typer.Option(help="screen; or paper: one or two columns wide, titles in captions.txt."),
    ] = "screen",
) -> None:
    """Draw a run's figures and print its summary again, from its results alone."""
    from flowjax.report.canvas import FORMATS
    from flowjax.runs.run import Drawing, redraw

    formats = tuple(dict.fromkeys(part.strip() for part in form.split(",")))
    if formats != ("reference",) and not set(formats) <= set(FORMATS):
        raise FlowjaxError(
            f"--format {form!r}: choose png, pdf or svg, or several as pdf,svg; or reference alone"
        )
    if style not in ("screen", "paper"):
        raise FlowjaxError(f"--style {style!r}: choose screen or paper")
    if formats == ("reference",):
        redraw(analysis_named(run), run, reference=True)
    else:
        redraw(analysis_named(run), run, drawing=Drawing(formats, style == "paper"))


def analysis_named(run: Path) -> "type[Analysis]":
    """The analysis that made a run.

    Raises:
        FlowjaxError: the folder is no run, or of none of our analyses.
    """
    from flowjax.runs.run import analysis_of

    # A manifest is not trusted with an import: its name is looked up among those found.
    name = analysis_of(run)
    found = find_analyses().get(name) if isinstance(name, str) else None
    if found is None:
        raise FlowjaxError(
            f"{run / 'manifest.json'}: analysis {name!r} is not one whose figures can be drawn"
        )
    return found.load()
