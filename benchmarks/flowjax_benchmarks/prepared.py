"""Reading prepared frames beside decoding them, in one run.

    flowjax bench prepared --json benchmarks/results/prepared-cpu.json

Clips of several kinds are encoded, prepared by one process and by two, and read both ways in turns,
by one process; the page cache is warm for both. Then a table of many questions is opened for the
first and the second time, each in a process of its own, and iterated.
"""

import json as js
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from flowjax.data.benchmark import read_benchmark
from flowjax.data.clip import read_clip
from flowjax.data.encode import write_mp4
from flowjax.data.prepare import Plan, prepare
from flowjax.data.prepared import FRAMES
from flowjax.data.sample import Sample
from flowjax.report.table import Table
from flowjax_benchmarks.record import command_line, record, say, write_result

FRAMES_READ = 8
TURNS = 3
AT_ONCE = 30
"""Samples of one turn."""

KINDS = {"320 x 240, 10 s": (240, 320, 250, 25), "640 x 480, 5 s": (480, 640, 150, 30)}
"""Height, width, frames, and frames a second."""

QUESTIONS = 100_000


def run(*, clips: int = 1_000, json: Path | None = None) -> dict[str, Any]:
    """Measure, print, and write the result where it is asked for.

    clips: that are prepared, of the first kind; of others a tenth.
    """
    with tempfile.TemporaryDirectory(prefix="flowjax-bench-") as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        result: dict[str, Any] = {
            "frames": FRAMES_READ,
            "kinds": [
                kind(Path(folder), name, clips if index == 0 else max(20, clips // 10))
                for index, name in enumerate(KINDS)
            ],
            "opening": opening(Path(folder) / "many"),
        }
    _tables(result)
    if json is not None:
        command = command_line("prepared", clips=clips, json=json)
        write_result(json, result | record(command, ["decord", "array_record"]))
    return result


def kind(folder: Path, name: str, clips: int) -> dict[str, Any]:
    """Preparing and reading clips of one kind."""
    say(f"{name}: {clips} clips")
    height, width, frames, fps = KINDS[name]
    source = folder / f"videos {height}"
    source.mkdir()
    different = 8
    for index in range(different):
        write_mp4(source / f"{index}.mp4", _moving(index, frames, height, width), fps)
    rows = []
    for index in range(clips):
        if index >= different:
            shutil.copy(source / f"{index % different}.mp4", source / f"{index}.mp4")
        row = {"video": f"{index}.mp4", "question": "What?", "options": ["a", "b"], "answer": "A"}
        rows.append(js.dumps(row) + "\n")
    (source / "questions.jsonl").write_text("".join(rows), encoding="utf-8")
    raw = read_benchmark(source)
    plan = Plan.of(raw)
    seconds = {}
    for workers in (1, 2):
        say(f"  preparing, workers: {workers}")
        out = folder / f"prepared {height} {workers}"
        start = time.perf_counter()
        failed = prepare(plan, source, out, frames=FRAMES_READ, workers=workers)
        seconds[str(workers)] = time.perf_counter() - start
        assert not failed
    ours, other = (folder / f"prepared {height} {workers}" / FRAMES for workers in (1, 2))
    same = all(file.read_bytes() == (other / file.name).read_bytes() for file in ours.iterdir())
    stored = read_benchmark(ours.parent)
    some = range(0, clips, max(1, clips // AT_ONCE))
    decoding, reading = [], []
    for turn in range(TURNS):
        say(f"  turn {turn + 1} of {TURNS}")
        decoding.append(_time(lambda: _read(raw[index] for index in some)))
        reading.append(_time(lambda: _read(stored[index] for index in some)))
    size = len(some) * FRAMES_READ * height * width * 3 / 1e6
    slow, fast = statistics.median(decoding), statistics.median(reading)
    return {
        "kind": name,
        "clips": clips,
        "prepare seconds by workers": seconds,
        "same files": same,
        "stored MB": sum(file.stat().st_size for file in ours.iterdir()) / 1e6,
        "frames MB": clips * FRAMES_READ * height * width * 3 / 1e6,
        "decoding samples/s": len(some) / slow,
        "prepared samples/s": len(some) / fast,
        "decoding MB/s": size / slow,
        "prepared MB/s": size / fast,
        "ratio": slow / fast,
        "ratios": [one / two for one, two in zip(decoding, reading, strict=True)],
    }


def _moving(seed: int, frames: int, height: int, width: int) -> np.ndarray:
    """A smooth picture that moves, with the noise of a camera."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 8, width // 16 + 8, 3)).astype(np.float32)
    whole = coarse.repeat(16, axis=0).repeat(16, axis=1)
    for axis in (0, 1):
        total = np.cumsum(whole, axis=axis)
        whole = (np.roll(total, -16, axis=axis) - total) / 16
    noise = rng.normal(0, 3, (height, width, 3)).astype(np.float32)
    video = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        top, left = 8 + index * 60 // frames, 8 + index * 90 // frames
        part = whole[top : top + height, left : left + width]
        video[index] = np.clip(part + np.roll(noise, 97 * index, axis=1), 0, 255)
    return video


def _read(samples: Iterable[Sample]) -> None:
    for sample in samples:
        assert read_clip(sample, FRAMES_READ).frames.size


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


OPEN = """
import json, sys, time
from pathlib import Path
from flowjax.data.benchmark import read_benchmark
import flowjax.data.question_cache
read_benchmark(Path(sys.argv[2]))
start = time.perf_counter()
samples = read_benchmark(Path(sys.argv[1]))
opened = time.perf_counter() - start
for sample in samples:
    pass
whole = time.perf_counter() - start - opened
print(json.dumps(
    {"questions": len(samples), "open seconds": opened, "iterate seconds": whole}
))
"""


def opening(folder: Path) -> dict[str, Any]:
    """Opening many questions for the first and the second time."""
    say(f"opening {QUESTIONS:,} questions")
    small = folder / "small"
    small.mkdir(parents=True)
    row = {"video": "v.mp4", "options": ["to the left", "to the right", "up"], "answer": "B"}
    for path, count in ((folder, QUESTIONS), (small, 1)):
        rows = (
            js.dumps(row | {"question": f"Where does object {i} go?", "task": f"t{i % 20}"}) + "\n"
            for i in range(count)
        )
        (path / "questions.jsonl").write_text("".join(rows), encoding="utf-8")
    command = [sys.executable, "-c", OPEN, str(folder), str(small)]
    first, second = (
        js.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(2)
    )
    return {"first": first, "second": second}


def _tables(result: dict[str, Any]) -> None:
    columns = ["clips", "1 worker", "2 workers", "decoding /s", "prepared /s", "ratio"]
    rows = []
    for one in result["kinds"]:
        seconds = one["prepare seconds by workers"]
        numbers = (one["decoding samples/s"], one["prepared samples/s"], one["ratio"])
        times = (f"{seconds['1']:.1f} s", f"{seconds['2']:.1f} s")
        rows.append([one["kind"], str(one["clips"]), *times, *(f"{n:.1f}" for n in numbers)])
    Table("Prepared beside decoding", ["clips of"], columns, rows).print()
    second = result["opening"]["second"]
    print(f"{second['questions']:,} questions open in {second['open seconds']:.2f} s")
