"""How a run was made, beside what decides its rows: command, hardware, versions, time, FLOPs.

RUN/made.json    one entry per time that samples were measured, to the end
"""

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowjax.errors import FlowjaxError
from flowjax.files import atomically, printable, read_json_value, writing
from flowjax.machine import hardware, versions
from flowjax.sweeps.plan import Flops

MADE = "made.json"
MODULE = ("flowjax", "cli", "__main__.py")
"""The program of `python -m flowjax.cli`."""


@dataclass
class Session:
    """A command at work on a run, in one process or several.

    samples: measured.
    naive, planned: FLOPs of the sweeps among them; 0 if none.
    """

    started: float = field(default_factory=time.time)
    samples: int = 0
    naive: float = 0.0
    planned: float = 0.0

    def add(self, flops: Flops | None) -> None:
        """Count a sample."""
        self.samples += 1
        if flops is not None:
            self.naive += flops.naive
            self.planned += flops.planned

    def joined(self, others: Sequence[Mapping[str, int | float]]) -> "Session":
        """The same of all processes of the run, of which `others` are the counts."""
        total = Session(self.started)
        for one in others:
            total.samples += int(one["samples"])
            total.naive += one["naive"]
            total.planned += one["planned"]
        return total

    @property
    def counts(self) -> dict[str, int | float]:
        """What is counted, as JSON values."""
        return {"samples": self.samples, "naive": self.naive, "planned": self.planned}

    def keep(self, run: Path) -> None:
        """Add it to a run's record, unless nothing was measured.

        Raises:
            FlowjaxError: the folder cannot be written to.
        """
        if not self.samples:
            return
        entry = {
            "command": command(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
            "seconds": round(time.time() - self.started, 1),
            "samples": self.samples,
            "flops": {"naive": self.naive, "planned": self.planned},
            "hardware": hardware(),
            "versions": versions(),
        }
        text = json.dumps([*read_sessions(run), entry], indent=1)
        with writing(run):
            atomically(run / MADE, lambda to: to.write_text(text, encoding="utf-8"))


def read_sessions(run: Path) -> list[dict[str, Any]]:
    """A run's record; empty where there is none, or none that is one."""
    try:
        found = read_json_value(run / MADE)
    except FlowjaxError:
        return []
    return found if isinstance(found, list) and all(isinstance(f, dict) for f in found) else []


def command() -> str:
    """The command line that runs, if it is flowjax's; empty in another program."""
    program, *arguments = sys.argv or [""]
    if Path(program).name != "flowjax" and Path(program).parts[-3:] != MODULE:
        return ""
    return shlex.join(["flowjax", *map(printable, arguments)])
