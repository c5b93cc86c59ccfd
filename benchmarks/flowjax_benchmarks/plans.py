"""Make the plans in benchmarks/results/plans: models and devices of docs/pods.md.

    python -m flowjax_benchmarks.plans benchmarks/results/plans --only llava-13b-v5e

Each is a command of its own, `flowjax plan`, whose text and JSON are kept, with how long it took.
Needs the extras `tpu-compile` and `cuda-compile`.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX, which reads it once

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from flowjax.errors import FlowjaxError
from flowjax.files import atomically, read_json
from flowjax_benchmarks.record import record, say, write_result

DEVICES = {"v5e": "v5e:4x4", "v5p": "v5p:2x2x4", "v6e": "v6e:4x4", "h100": "h100x8"}
MODELS = {
    "llava-7b": ("llava-next-7b-video-ft",),
    "llava-13b": ("llava-next-13b-video-ft",),
    # 108 frames of 640 x 360 pixels are 16,146 positions.
    "qwen-7b-16k": ("qwen2.5-vl-7b", "--frames", "108", "--data", "video-mme:2700"),
    # A prefill, and one window of one edge.
    "qwen-72b": ("qwen2.5-vl-72b", "--edge", "question->last", "--centres", "40"),
}
PLANS = {
    f"{model}-{chip}": (*words, "--on", devices)
    for model, words in MODELS.items()
    for chip, devices in DEVICES.items()
}


def make(name: str, folder: Path) -> None:
    """Make one plan.

    Raises:
        FlowjaxError: the command failed.
    """
    json = folder / f"{name}.json"
    words = ["plan", *PLANS[name], "--json", str(json)]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "flowjax.cli", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FlowjaxError(f"{name}: {done.stderr.strip()}")
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    text = f"$ flowjax {' '.join(map(quoted, words[:-2]))}\n{done.stdout}"
    atomically(folder / f"{name}.txt", lambda path: path.write_text(text, encoding="utf-8"))
    packages = ("libtpu", "jax-cuda13-plugin")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    made = {"seconds": seconds, "processor_seconds": processor}
    result = read_json(json) | made | record(["flowjax", *words], packages)
    write_result(json, result)
    say(f"{name}: {seconds:.0f} s, {processor:.0f} s of processors")


def quoted(word: str) -> str:
    """As a shell takes it."""
    return f"'{word}'" if ">" in word else word


def main() -> None:
    """Make those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=PLANS, default=[*PLANS], metavar="NAME")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name in asked.only:
        make(name, asked.folder)


if __name__ == "__main__":
    main()
