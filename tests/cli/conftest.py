import contextlib
import io
import sys
from dataclasses import dataclass

import pytest

from flowjax import cli
from flowjax.data.encode import write_mp4
from tests.random_checkpoint import NOTE, write_random_checkpoint
from tests.videos import moving_square


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def flowjax():
    """Run the command in this process, as the console script does."""

    def run(*arguments) -> Result:
        out, err = io.StringIO(), io.StringIO()
        argv, sys.argv = sys.argv, ["flowjax", *map(str, arguments)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                cli.main()
        except SystemExit as stop:
            return Result(stop.code or 0, out.getvalue(), err.getvalue())
        finally:
            sys.argv = argv
        raise AssertionError("main returned without an exit code")

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "random"
    write_random_checkpoint(folder, ["What moves in the video?", "the red square", "to the left."])
    return folder


@pytest.fixture(scope="session")
def model(checkpoint, flowjax, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "model"
    result = flowjax("convert", checkpoint, out, "--note", NOTE)
    assert result.code == 0, result.err
    return out


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "clip.mp4"
    write_mp4(path, moving_square(frames=20), 10)
    return path


@pytest.fixture(scope="session")
def asked(model, clip):
    """The arguments of a good sweep but for --out."""
    return [
        "sweep", model, "--video", clip, "--question", "What moves?",
        "--option", "the red square", "--option", "nothing", "--answer", "A",
    ]  # fmt: skip
