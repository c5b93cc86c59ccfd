"""Which `ptxas` turns the GPU kernel into machine code, and whether it does so rightly.

JAX's Mosaic GPU runs the first `ptxas` that it finds: in PATH, then in `/usr/local/cuda`, then in
the wheel `nvidia-cuda-nvcc` (seen in XLA's log, JAX 0.10.2 and 0.11.2).
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

MISCOMPILES = (12, 8, 0), (12, 9, 86)
"""From CUDA 12.8.0 on, until 12.9.1, whose ptxas is 12.9.86: a query block without full blocks may
read a query descriptor that was never set. JAX refuses its own causal kernel with these, too."""
SYSTEM = Path("/usr/local/cuda/bin/ptxas")
WHEELS = "cu13/bin/ptxas", "cuda_nvcc/bin/ptxas"
"""Below the package `nvidia`: of the wheels for CUDA 13 and 12."""

Version = tuple[int, ...]


def refusal() -> str | None:
    """Why the `ptxas` that is here cannot compile the kernel; None if it can, or none is here."""
    path = find()
    release = version(path) if path else None
    if release is None or not MISCOMPILES[0] <= release < MISCOMPILES[1]:
        return None
    return (
        f"ptxas {'.'.join(map(str, release))} ({path}) miscompiles it, as every one of CUDA 12.8.0 "
        "to before 12.9.1 does: put a later one first in PATH"
    )


def find() -> Path | None:
    """The `ptxas` that JAX runs."""
    in_path = shutil.which("ptxas")
    candidates = [Path(in_path)] if in_path else []
    candidates += [SYSTEM, *_wheels()]
    return next((each for each in candidates if os.access(each, os.X_OK)), None)


def _wheels() -> Iterable[Path]:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from (Path(folder) / each for each in WHEELS)


@functools.cache
def version(path: Path) -> Version | None:
    """What a `ptxas` says it is, such as (13, 0, 88); None if it does not say."""
    try:
        said = subprocess.run(
            [path, "--version"], check=False, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\bV(\d+)\.(\d+)\.(\d+)", said.stdout)
    return tuple(map(int, found.groups())) if found else None
