"""Saying in one line which host ended a run.

When a process of a run ends, JAX ends all others from within, with a stack trace and SIGABRT, and
lets no Python code have a word. So each process has a parent that knows no JAX, passes on what is
written to standard error, and says the sentence.
"""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

NAMES = "FLOWJAX_HOST_NAMES"
"""The environment variable that has the descriptor for the hosts' names; set by a supervisor."""

TROUBLE = re.compile(rb"[EF]\d{4} [\d:.]+ +\d+ (coordination_service\w*\.cc|client\.h):")
"""How lines of JAX begin that say that a process is gone."""

GONE = re.compile(r"unhealthy \(stopped sending heartbeats\):\s*((?:\d+\s)+)")
LEADER = "Failed to send RPC to coordination service"
"""Process 0 is gone, which holds the service."""


def is_supervised() -> bool:
    """Whether this process has a supervisor."""
    return NAMES in os.environ


def supervise() -> int:
    """Run this command again as a child; its exit code, or 2 where another process ended the run.

    The child has a terminal for standard error if this process has one.
    """
    with tempfile.TemporaryFile() as names:
        ours, theirs = pty.openpty() if sys.stderr.isatty() else os.pipe()
        child = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            stderr=theirs,
            pass_fds=[names.fileno()],
            env={**os.environ, NAMES: str(names.fileno())},
        )
        os.close(theirs)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
        held = _pass_on(ours)
        code = child.wait()
        names.seek(0)
        found = json.loads(names.read() or "[]")
    gone = _gone(held.decode(errors="replace"))
    if code == -signal.SIGABRT and gone:
        print(sentence(gone, found, "ended or stopped answering"), file=sys.stderr)
        return 2
    _write(held)
    return code if code >= 0 else 128 - code


def sentence(processes: Sequence[int], names: Sequence[str], what: str) -> str:
    """What a run says of the processes that ended it."""
    hosts = [
        f"process {one}" + (f" on {names[one]}" if one < len(names) else "") for one in processes
    ]
    return (
        f"flowjax: {', '.join(hosts)} {what}; the run has ended on every host. What is finished "
        "is kept: the same command goes on"
    )


def _pass_on(descriptor: int) -> bytes:
    """Write what comes to standard error, until its end; what JAX says of its end is held back."""
    held, line = b"", b""
    while True:
        try:
            part = os.read(descriptor, 1 << 16)
        except OSError:  # how a terminal ends
            part = b""
        if not part:
            break
        if held:
            held += part
            continue
        *lines, line = (line + part).splitlines(keepends=True) or [b""]
        if line.endswith(b"\n") or line[:1] not in (b"E", b"F"):
            lines, line = [*lines, line], b""
        for index, whole in enumerate(lines):
            if TROUBLE.match(whole):
                held, line = b"".join([*lines[index:], line]), b""
                break
            _write(whole)
    os.close(descriptor)
    return held + line


def _gone(said: str) -> list[int]:
    """The processes that JAX says are gone; none if it says something else."""
    if match := GONE.search(said):
        return sorted({int(number) for number in match[1].split()})
    return [0] if LEADER in said else []


def _write(part: bytes) -> None:
    sys.stderr.buffer.write(part)
    sys.stderr.buffer.flush()
