"""Every write of a command fails once, and then the same command must give what it always gives.

    python -m tests.faults.harness                  # every write of every command, every fault
    python -m tests.faults.harness sweep --points 9 # nine writes of one, chosen at random
    python -m tests.faults.harness convert --turns  # every write once, the errors taking turns

The system's calls are failed by `shim.c`, which stands before the C library, so that writes of C++
and Rust code count like those of Python. A full disk, a forbidden path and a broken one end a
command with exit code 2 and one line, or do not matter (a cache); a kill ends it with 137.
"""

import argparse
import contextlib
import ctypes
import errno
import faulthandler
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHIM = Path(__file__).with_name("shim.c")
KILL = -1
LONGEST = 120
"""Seconds that a command may take."""
FAULTS = {
    "no space": (errno.ENOSPC, 0),
    "no space any more": (errno.ENOSPC, 1),
    "forbidden": (errno.EACCES, 0),
    "broken": (errno.EIO, 0),
    "killed": (KILL, 0),
}
"""By name: the error number, and whether later calls that need room fail too."""

QUESTIONS = ["--data", "{inputs}/shapes", "--task", "moving_direction", "--task", "object_count"]
COMMANDS = {
    "evaluate": ["evaluate", "{inputs}/model", *QUESTIONS, "--out", "{out}"],
    "sweep": [
        "sweep", "{inputs}/model", *QUESTIONS, "--out", "{out}", "--edges", "cross-frame",
        "--window", "3", "--samples", "all",
    ],
    "convert": ["convert", "{inputs}/shallow", "{out}"],
    "make-shapes": ["make-shapes", "{out}", "--per-task", "1"],
}  # fmt: skip


@dataclass
class Found:
    """What was found of one command.

    calls: that write, of one undisturbed run.
    tried: calls that were made to fail, by fault.
    absorbed: of them, those that did not matter to the command.
    missed: calls chosen that a command ended before.
    problems: everything that was not as it must be.
    """

    calls: int = 0
    tried: dict[str, int] = field(default_factory=dict)
    absorbed: int = 0
    missed: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """Which calls fail.

    points: of each command for each error, chosen at random; 0 for all.
    kills: calls that end the process, likewise.
    turns: every call fails once, and the errors take turns.
    """

    points: int = 0
    kills: int = 0
    turns: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a command ended; fired: the call that failed."""

    code: int
    err: str
    fired: str = ""
    calls: int = 0


@contextlib.contextmanager
def descriptor_of_errors(path: Path) -> Iterator[Path]:
    """What libraries write to the descriptor of standard error, `sys.stderr` or not, in a file."""
    saved = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield path
    finally:
        os.dup2(saved, 2)
        os.close(saved)


class Command:
    """One command in a folder of its own, whose writes are counted."""

    def __init__(self, name: str, inputs: Path, watched: Path) -> None:
        self.name, self.watched, self.out = name, watched, watched / "out"
        self.words = [word.format(inputs=inputs, out=self.out) for word in COMMANDS[name]]

    def clean(self) -> None:
        """Nothing is there, caches neither."""
        for name in ("out", "cache", "tmp"):
            shutil.rmtree(self.watched / name, ignore_errors=True)
        for left in self.watched.glob(".*"):
            shutil.rmtree(left, ignore_errors=True)
        (self.watched / "tmp").mkdir(parents=True)

    def run(self, number: int = 0, reason: int = 0, lasting: int = 0) -> Outcome:
        """Run it as the console script does, with its `number`-th call failing."""
        from flowjax import cli

        shim = ctypes.CDLL(None)
        shim.fault_fired.restype = ctypes.c_char_p
        shim.fault_disarm.restype = ctypes.c_long
        err, argv = io.StringIO(), sys.argv
        sys.argv = ["flowjax", *self.words]
        code: Any = None
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(err),
            descriptor_of_errors(self.watched.with_name("stderr")) as said,
        ):
            folder = os.fsencode(self.watched)
            faulthandler.dump_traceback_later(LONGEST, exit=True, file=sys.__stderr__)
            shim.fault_arm(folder, ctypes.c_long(number), reason, lasting)
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code or 0
            except BaseException as error:  # what a user would see as a traceback
                code = f"{type(error).__name__}: {error}"
            finally:
                calls = shim.fault_disarm()
                faulthandler.cancel_dump_traceback_later()
                sys.argv = argv
        said_by_all = err.getvalue() + said.read_text(errors="replace")
        return Outcome(code, said_by_all, shim.fault_fired().decode(), calls)

    def content(self) -> Any:
        """What the command is for, to be compared."""
        import pyarrow.parquet as pq

        from flowjax.models.checkpoint import checkpoint_digest

        if self.name == "convert":
            return checkpoint_digest(self.out)
        if self.name == "make-shapes":
            return self.digests("**/*")
        failed = (self.out / "failures.parquet").exists()
        rows = pq.read_table(self.out / "results.parquet").to_pylist()
        return rows, self.digests("figures/[!.]*"), failed

    def digests(self, pattern: str) -> dict[str, str]:
        """Of files that were written, by their names."""
        files = sorted(path for path in self.out.glob(pattern) if path.is_file())
        return {
            str(path.relative_to(self.out)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    def finished(self) -> dict[str, int]:
        """When each sample's rows were written."""
        return {path.name: path.stat().st_mtime_ns for path in self.out.glob("parts/[!.]*")}

    def leftovers(self) -> list[str]:
        """What no one asked for. Pictures may be left half-written under hidden names."""
        found = [path for path in self.watched.iterdir() if path.name.startswith(".")]
        found += (self.watched / "tmp").iterdir()
        found += [path for path in self.out.rglob(".*") if path.name not in (".lock", ".zarray")]
        return [str(path) for path in found if path.parent.name != "figures"]

    def whole(self, expected: Any) -> bool:
        """Whether everything that it is for is there."""
        try:
            return self.content() == expected
        except Exception:  # absent, or in part
            return False

    def again(self) -> Outcome:
        """Run it undisturbed from nothing."""
        self.clean()
        return self.run()

    def killed(self, number: int) -> Outcome:
        """Run it in a process of its own, which its `number`-th call ends."""
        words = ["--child", str(self.watched.parent), "--kill", str(number), self.name]
        done = subprocess.run([sys.executable, __file__, *words], timeout=LONGEST)
        return Outcome(done.returncode, "")

    def judge(self, outcome: Outcome, expected: Any) -> list[str]:
        """What is wrong with how it ended, and with the same command after it."""
        problems = []
        lines = outcome.err.splitlines()
        if outcome.code == 0 and (lines or not self.whole(expected)):
            problems.append(f"ended well, but said {lines} or lacks something")
        if outcome.code == 2 and (len(lines) != 1 or not lines[0].startswith("flowjax: ")):
            problems.append(f"said {lines}")
        if outcome.code not in (0, 2, 137):
            problems.append(f"exit {outcome.code}")
        finished, complete = self.finished(), self.whole(expected)
        second = self.run()
        refused = second.code == 2 and "already exists" in second.err
        if not (second.code == 0 and not second.err) and not (refused and complete):
            problems.append(f"again: exit {second.code}: {second.err.strip()}")
        if not self.whole(expected):
            problems.append("again: something else than an undisturbed run gives")
        if not finished.items() <= self.finished().items():
            problems.append("again: finished samples were computed anew")
        if left := self.leftovers():
            problems.append(f"left: {left}")
        return problems


def chosen(name: str, fault: str, calls: int, how: Choice) -> list[int]:
    """The calls of a command, from 1, that a fault is tried at."""
    every = range(1, calls + 1)
    kills = FAULTS[fault][0] == KILL
    if how.turns and not kills:
        errors = [other for other, (reason, _) in FAULTS.items() if reason != KILL]
        return [*every[errors.index(fault) :: len(errors)]]
    most = how.kills if kills else how.points
    some = random.Random(f"{name} {fault}").sample(every, min(most, calls))
    return sorted(some) if most else [*every]


def examine(command: Command, how: Choice) -> Found:
    """Have calls of a command fail."""
    began, found = time.monotonic(), Found()
    command.clean()
    whole = command.run()
    assert (whole.code, whole.err) == (0, ""), f"{command.name} fails by itself: {whole}"
    expected, found.calls = command.content(), command.again().calls
    for name, (reason, lasting) in FAULTS.items():
        for number in chosen(command.name, name, found.calls, how):
            command.clean()
            outcome = (
                command.killed(number) if reason == KILL else command.run(number, reason, lasting)
            )
            found.tried[name] = found.tried.get(name, 0) + 1
            if outcome.code == 0:
                found.absorbed += bool(outcome.fired)
                found.missed += not outcome.fired
            where = f"{command.name}, {name} at {number}, {outcome.fired}: "
            problems = [where + said for said in command.judge(outcome, expected)]
            print(*problems, sep="\n", end="\n" * bool(problems), file=sys.stderr)
            found.problems += problems
    found.seconds = time.monotonic() - began
    return found


def make_inputs(folder: Path) -> None:
    """A small model and two questions, outside of what is watched."""
    from flowjax.data.shapes.benchmark import write_benchmark
    from flowjax_convert.run import convert
    from tests.random_checkpoint import write_random_checkpoint

    tasks = ("moving_direction", "object_count")
    write_benchmark(folder / "shapes", split="test", per_task=1, tasks=tasks)
    write_random_checkpoint(folder / "checkpoint", ["Which way does the red square move? How many"])
    convert(folder / "checkpoint", folder / "model")
    write_random_checkpoint(folder / "shallow", ["How many"], layers=1, vision_layers=2)


def build(folder: Path) -> Path | None:
    """The shim, compiled; None where there is no C compiler, or the system is not Linux."""
    if sys.platform != "linux":
        return None
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    shim = folder / "shim.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", shim, SHIM, "-ldl"], check=True)
    return shim


def inject(folder: Path, shim: Path, names: list[str], how: Choice) -> dict[str, Found]:
    """Examine commands in a process with the shim.

    Args:
        folder: an empty one, which is filled.
        shim: from `build`.
        names: of `COMMANDS`.
        how: which calls fail.
    """
    watched = folder / "watched"
    (watched / "tmp").mkdir(parents=True)
    (folder / "inputs").mkdir()
    environment = os.environ | {
        "LD_PRELOAD": str(shim),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path])),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get(
            "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax")
        ),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "XDG_CACHE_HOME": str(watched / "cache"),
        "TMPDIR": str(watched / "tmp"),
    }
    numbers = ["--points", str(how.points), "--kills", str(how.kills), *["--turns"] * how.turns]
    command = [sys.executable, __file__, "--child", str(folder), *numbers, *names]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {name: Found(**fields) for name, fields in json.loads(done.stdout).items()}


def main() -> None:
    """Examine the commands, and print what was found; the exit code is 1 if there are problems."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(COMMANDS))
    parser.add_argument("--points", type=int, default=0, help="for each fault; 0: all")
    parser.add_argument("--kills", type=int, default=0, help="at so many; 0: at all")
    parser.add_argument("--turns", action="store_true", help="every call once, errors in turn")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    how = Choice(given.points, given.kills, given.turns)
    if given.child:
        inputs, watched = given.child / "inputs", given.child / "watched"
        commands = [Command(name, inputs, watched) for name in given.names]
        if given.kill:
            sys.exit(commands[0].run(given.kill, KILL).code)
        make_inputs(inputs)
        found = {of.name: asdict(examine(of, how)) for of in commands}
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        shim = build(Path(folder))
        assert shim is not None, "a C compiler is needed"
        of_each = inject(Path(folder), shim, given.names, how)
    for name, of in of_each.items():
        tried = ", ".join(f"{fault} {count}" for fault, count in of.tried.items())
        said = f"{name}: {of.calls} calls; {tried}; {of.absorbed} did not matter"
        print(f"{said}; {of.missed} were not reached; {of.seconds:.0f} s")
        for problem in of.problems:
            print(f"  {problem}")
    sys.exit(any(of.problems for of in of_each.values()))


if __name__ == "__main__":
    main()
