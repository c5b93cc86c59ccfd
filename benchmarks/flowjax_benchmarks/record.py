"""What every committed result says beside its numbers."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowjax.files import atomically
from flowjax.machine import hardware, versions


def record(command: Sequence[str], packages: Sequence[str] = ()) -> dict[str, Any]:
    """Hardware, versions and command."""
    return {
        "command": " ".join(command),
        "hardware": hardware(),
        "versions": versions(packages),
    }


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1) + "\n"
    atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def command_line(name: str, **options: object) -> list[str]:
    """The command that gives this result again."""
    words = ["flowjax", "bench", name]
    for option, value in options.items():
        if value is True:
            words.append(f"--{option}")
        elif value not in (None, False):
            for each in value if isinstance(value, list | tuple) else [value]:
                words += [f"--{option}", str(each)]
    return words


def say(text: str) -> None:
    """Progress of a measurement, on standard error."""
    print(text, file=sys.stderr, flush=True)
