"""What every committed result says beside its numbers."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from flowjax.files import atomically
from flowjax.version import __version__


def record(command: Sequence[str], packages: Sequence[str] = ()) -> dict[str, Any]:
    """Hardware, versions and command."""
    return {
        "command": " ".join(command),
        "hardware": {
            "device": jax.devices()[0].device_kind,
            "devices": jax.device_count(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        },
        "versions": {
            "flowjax": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "jaxlib", "flax", "numpy", *packages)},
        },
    }


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def version(package: str) -> str:
    """An installed package's version."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


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
