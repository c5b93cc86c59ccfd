"""The command `flowjax`: thin subcommands that import what they need when they run."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flowjax.errors import FlowjaxError
from flowjax.version import __version__

app = typer.Typer(
    name="flowjax",
    help="Where in a VideoLLM does the answer come from?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[Path, typer.Argument(help="A converted model: the OUT of `flowjax convert`.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"flowjax {__version__}")
        raise typer.Exit


@app.command()
def convert(
    src: Annotated[str, typer.Argument(help="A checkpoint's folder, or a hub id org/name.")],
    out: Annotated[Path | None, typer.Argument(help="Folder to make.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16; each tensor keeps its own if absent.")
    ] = None,
    pooling_shape: Annotated[
        str | None, typer.Option(help="Frames, rows and columns kept by pooling, as T-H-W.")
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(help="A LoRA adapter (PEFT) to merge into SRC: a folder or a hub id."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    note: Annotated[
        str, typer.Option(help="A sentence that every result of this model will carry.")
    ] = "",
    verify: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Compare OUT, made from SRC, with it; write nothing."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a Hugging Face checkpoint to Orbax."""
    from convert import command

    if verify is not None:
        raise typer.Exit(command.verify(src, verify))
    command.convert(
        src,
        out,
        dtype=dtype,
        pooling_shape=pooling_shape,
        adapter=adapter,
        revision=revision,
        note=note,
        overwrite=overwrite,
    )


@app.command()
def sweep(
    model: Model,
    video: Annotated[Path, typer.Option(help="A video file.")],
    question: Annotated[str, typer.Option(help="The question, without its options.")],
    option: Annotated[list[str], typer.Option(help="An option; give one per option, in order.")],
    answer: Annotated[str, typer.Option(help="Letter of the true option.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    edges: Annotated[
        list[str] | None,
        typer.Option(help="An edge set of the paper; may be repeated. Default: all four."),
    ] = None,
    edge: Annotated[
        list[str] | None,
        typer.Option(
            help="An edge of your own, such as 'frame_0->question_stem'; several at once as a+b; "
            "'question_stem[*]' is each of its tokens."
        ),
    ] = None,
    heads: Annotated[
        str | None, typer.Option(help="Cut heads one by one: all, or numbers such as 0,3,5.")
    ] = None,
    window: Annotated[int, typer.Option(help="Layers cut at a time.")] = 9,
    style: Annotated[str, typer.Option(help="center, inverse, top_down or bottom_up.")] = "center",
    memory: Annotated[
        str | None,
        typer.Option(help="Device memory for kept states and one batch, such as 8GB."),
    ] = None,
    mesh: Annotated[
        str | None,
        typer.Option(help="Devices as DATAxMODEL: windows over DATA, tensor parallel over MODEL."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what the sweep costs and stop.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Cut attention edges in every window of layers and watch the answer's probability."""
    from experiments import information_flow

    asked = information_flow.Asked(
        model=model,
        video=video,
        question=question,
        options=tuple(option),
        answer=answer,
        edge_sets=tuple(edges or ()),
        edges=tuple(edge or ()),
        width=window,
        style=style,
        heads=heads,
        memory=memory,
        mesh=mesh,
    )
    if plan:
        information_flow.print_plan(asked)
    elif out is None:
        raise FlowjaxError("sweep needs --out, the folder of the run (or --plan)")
    else:
        information_flow.run(asked, out, overwrite=overwrite)


@app.command()
def figures(
    run: Annotated[Path, typer.Argument(help="The folder of a finished sweep.")],
) -> None:
    """Draw a sweep's figures again from its results."""
    from experiments.information_flow import report

    report(run)


bench = typer.Typer(help="Measure, side by side in one run.", no_args_is_help=True)
app.add_typer(bench, name="bench")

Json = Annotated[Path | None, typer.Option(help="File to write the result to.")]


@bench.command("sweep")
def bench_sweep(
    shape: Annotated[str, typer.Option(help="small (12 layers, 512 wide) or 7b.")] = "small",
    peer: Annotated[str | None, typer.Option(help="torch: measure a PyTorch loop too.")] = None,
    json: Json = None,
) -> None:
    """The planned sweep beside the naive one."""
    from benchmarks.sweep import run

    run(shape, peer=peer, json=json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    overwrite: Overwrite = False,
) -> None:
    """Make a small checkpoint and videos, convert, sweep, and draw."""
    from experiments.demo import run

    run(out, overwrite=overwrite)


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except FlowjaxError as error:
        fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        # A usage error of click's, which typer brings along under a private name.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        fail(message())
    else:
        sys.exit(code if isinstance(code, int) else 0)


def fail(message: str) -> None:
    """Print one line to standard error and exit with 2."""
    line = " ".join(message.split())
    print(f"flowjax: {line}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
