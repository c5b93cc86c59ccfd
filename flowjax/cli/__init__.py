"""The command `flowjax`: thin subcommands that import what they need when they run."""

import io
import logging
import os
import sys
from typing import Annotated

import typer

from flowjax.cli import bench
from flowjax.cli.analyses import AnalysisGroup, figures
from flowjax.cli.check import check
from flowjax.cli.convert import convert
from flowjax.cli.demo import demo
from flowjax.cli.export import export
from flowjax.cli.generate import generate
from flowjax.cli.make_shapes import make_shapes
from flowjax.cli.plan import plan
from flowjax.cli.prepare import prepare
from flowjax.cli.report import report
from flowjax.cli.train import train
from flowjax.errors import FlowjaxError
from flowjax.platforms import skip_absent_tpu
from flowjax.version import __version__

app = typer.Typer(
    cls=AnalysisGroup,
    name="flowjax",
    help="Where in a VideoLLM does the answer come from?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
pathways = typer.Typer(cls=AnalysisGroup, help="Which edges an answer needs.", no_args_is_help=True)
app.command()(convert)
app.command()(check)
app.command()(figures)
app.command()(report)
app.command()(generate)
app.command("make-shapes")(make_shapes)
app.command()(plan)
app.command()(prepare)
app.command()(demo)
app.command()(train)
app.command()(export)
app.add_typer(pathways, name="pathways")
app.add_typer(bench.app, name="bench")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"flowjax {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and exit code 2."""
    try:
        run()
    except BaseException as error:
        if hosts := sys.modules.get("flowjax.hosts.join"):
            hosts.leave(error)
        raise


def run() -> None:
    """Run the command, and end the process."""
    skip_absent_tpu()
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; a notebook sets one that is not here
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where its cache cannot be
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except FlowjaxError as error:
        fail(str(error))
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # what the system refuses is never a mistake of the program
        fail(f"{error.filename or 'standard output'}: {error.strerror or error}")
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
