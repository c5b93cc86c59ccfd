"""Reading prepared frames beside decoding them, in one run.

    flowjax bench prepared --json benchmarks/results/prepared-cpu.json

Clips of several kinds are encoded, prepared by one process and by two, and read both ways in turns,
by one process; the page cache is warm for both. Then a table of many questions is opened for the
first and the second time, each in a process of its own, and iterated.
"""

import json as js
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import av
import numpy as np
from jaxtyping import UInt8

from flowjax.data.benchmark import read_benchmark
from flowjax.data.clip import read_clip
from flowjax.data.prepare import Plan, prepare
from flowjax.data.prepared import FRAMES
from flowjax.data.sample import Sample
from flowjax.report.table import Table
from flowjax_benchmarks.convert import memory
from flowjax_benchmarks.record import command_line, record, say, write_result

FRAMES_READ = 8
TURNS = 3
AT_ONCE = 30
"""Samples that are decoded in one turn; prepared ones, all are read."""

KINDS = {
    "320 x 240, 10 s": (240, 320, 250, 25),
    "640 x 480, 5 s": (480, 640, 150, 30),
    "640 x 480, 30 s": (480, 640, 900, 30),
}
"""Height, width, frames, and frames a second; the last as long and large as those of Charades."""

DIFFERENT = 2
"""Videos of a kind; the others are links to them."""

QUESTIONS = 100_000
PARTS = 10
"""Memory is read after each."""


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
    height, width = KINDS[name][:2]
    source = folder / f"videos {name}"
    source.mkdir()
    for index in range(DIFFERENT):
        _encode(source / f"{index}.mp4", index, *KINDS[name])
    rows = []
    for index in range(clips):
        if index >= DIFFERENT:
            (source / f"{index}.mp4").hardlink_to(source / f"{index % DIFFERENT}.mp4")
        row = {"video": f"{index}.mp4", "question": "What?", "options": ["a", "b"], "answer": "A"}
        rows.append(js.dumps(row) + "\n")
    (source / "questions.jsonl").write_text("".join(rows), encoding="utf-8")
    raw = read_benchmark(source)
    plan = Plan.of(raw)
    seconds = {}
    for workers in (1, 2):
        say(f"  preparing, workers: {workers}")
        out = folder / f"prepared {name} {workers}"
        start = time.perf_counter()
        failed = prepare(plan, source, out, frames=FRAMES_READ, workers=workers)
        seconds[str(workers)] = time.perf_counter() - start
        assert not failed
    ours, other = (folder / f"prepared {name} {workers}" / FRAMES for workers in (1, 2))
    same = all(file.read_bytes() == (other / file.name).read_bytes() for file in ours.iterdir())
    stored = read_benchmark(ours.parent)
    some = range(0, clips, max(1, clips // AT_ONCE))
    decoding, reading = [], []
    for turn in range(TURNS):
        say(f"  turn {turn + 1} of {TURNS}")
        decoding.append(_time(lambda: _read(raw[index] for index in some)))
        reading.append(_time(lambda: _read(stored)))
    size = FRAMES_READ * height * width * 3 / 1e6
    slow, fast = statistics.median(decoding) / len(some), statistics.median(reading) / clips
    several = zip(decoding, reading, strict=True)
    return {
        "kind": name,
        "clips": clips,
        "prepare seconds by workers": seconds,
        "same files": same,
        "stored MB": sum(file.stat().st_size for file in ours.iterdir()) / 1e6,
        "frames MB": clips * size,
        "decoding samples/s": 1 / slow,
        "prepared samples/s": 1 / fast,
        "decoding MB/s": size / slow,
        "prepared MB/s": size / fast,
        "iterating": _alone(_iterate, ours.parent, FRAMES_READ),
        "ratio": slow / fast,
        "ratios": [one / len(some) / (two / clips) for one, two in several],
    }


def _encode(path: Path, seed: int, height: int, width: int, frames: int, fps: int) -> None:
    """As x264 does unasked: of medium quality, with a key frame every 250 frames at the latest."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"threads": "1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in _moving(seed, frames, height, width):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def _moving(
    seed: int, frames: int, height: int, width: int
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """A smooth picture that moves, with the noise of a camera."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 8, width // 16 + 8, 3)).astype(np.float32)
    whole = coarse.repeat(16, axis=0).repeat(16, axis=1)
    for axis in (0, 1):
        total = np.cumsum(whole, axis=axis)
        whole = (np.roll(total, -16, axis=axis) - total) / 16
    noise = rng.normal(0, 3, (height, width, 3)).astype(np.float32)
    for index in range(frames):
        top, left = 8 + index * 60 // frames, 8 + index * 90 // frames
        part = whole[top : top + height, left : left + width]
        yield np.clip(part + np.roll(noise, 97 * index, axis=1), 0, 255).astype(np.uint8)


def _read(samples: Iterable[Sample]) -> None:
    for sample in samples:
        assert read_clip(sample, FRAMES_READ).frames.size


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def opening(folder: Path) -> dict[str, Any]:
    """Opening many questions for the first and the second time, and iterating over all of them."""
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
    return {
        "questions": QUESTIONS,
        "first open seconds": _alone(_open, folder, small),
        "second open seconds": _alone(_open, folder, small),
        "iterating": _alone(_iterate, folder, None),
    }


T = TypeVar("T")
P = ParamSpec("P")


def _alone(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments, **options).result()


def _open(folder: Path, small: Path) -> float:
    """Seconds; what libraries take for the first time, a small table has paid."""
    read_benchmark(small)
    return _time(lambda: read_benchmark(folder))


def _iterate(folder: Path, frames: int | None) -> dict[str, Any]:
    """Reading every sample, and its frames where there are any: seconds, and resident MiB.

    Memory is that before the first sample, and after each tenth of them.
    """
    samples = read_benchmark(folder)
    found = [round(memory()["VmRSS"], 1)]
    start = time.perf_counter()
    for part in range(PARTS):
        for index in range(part * len(samples) // PARTS, (part + 1) * len(samples) // PARTS):
            sample = samples[index]
            if frames is not None:
                assert read_clip(sample, frames).frames.size
        found.append(round(memory()["VmRSS"], 1))
    return {"seconds": time.perf_counter() - start, "resident MiB": found}


def _tables(result: dict[str, Any]) -> None:
    columns = ["clips", "1 worker", "2 workers", "decoding /s", "prepared /s", "ratio"]
    rows = []
    for one in result["kinds"]:
        seconds = one["prepare seconds by workers"]
        numbers = (one["decoding samples/s"], one["prepared samples/s"], one["ratio"])
        times = (f"{seconds['1']:.1f} s", f"{seconds['2']:.1f} s")
        rows.append([one["kind"], str(one["clips"]), *times, *(f"{n:.1f}" for n in numbers)])
    Table("Prepared beside decoding", ["clips of"], columns, rows).print()
    many = result["opening"]
    print(f"{many['questions']:,} questions open in {many['second open seconds']:.2f} s")
