"""One command, started once per host as on a pod: here, processes of this machine on loopback."""

import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.processes import environment

CHILD = Path(__file__).with_name("child_runs.py")


@dataclass
class Ended:
    code: int
    out: str
    err: str


def start(processes: int, *command: object, devices: int = 1) -> list[subprocess.Popen]:
    """Begin `flowjax COMMAND` in so many processes, each with so many devices of its CPU."""
    address = f"127.0.0.1:{free_port()}"
    flags = ("--num-processes", processes, "--coordinator", address, "--process-id")
    return [
        begin(devices, "-m", "flowjax.cli", *command, *flags, process)
        for process in range(processes)
    ]


def start_all(processes: int, *arguments: object, devices: int = 1) -> list[subprocess.Popen]:
    """The same for every analysis of `child_runs.py`."""
    address = f"127.0.0.1:{free_port()}"
    return [
        begin(devices, CHILD, *arguments, address, processes, process)
        for process in range(processes)
    ]


def begin(devices: int, *command: object) -> subprocess.Popen:
    """Begin a Python program."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(started: list[subprocess.Popen], timeout: float = 300) -> list[Ended]:
    """Wait for all; none is left behind."""
    try:
        said = [one.communicate(timeout=timeout) for one in started]
    finally:
        for one in started:
            one.kill()
    return [Ended(one.returncode, out, err) for one, (out, err) in zip(started, said, strict=True)]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
