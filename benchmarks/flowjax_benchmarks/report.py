"""What `flowjax report` takes for a large sweep and a long video with fine frames.

    flowjax bench report --json benchmarks/results/report-cpu.json

Three finished runs are made up, as a model of 32 layers would leave them: a sweep of the paper's
eleven edges, and lens words and attention (as it was, and with an edge cut) of one sample of 16
frames of 24 x 24 tokens. Then the command runs on them, each time in a process of its own.
"""

import json as js
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowjax.layer_windows import EDGE_SETS
from flowjax.lens.pictures import Pictures, keep_pictures
from flowjax.report.table import Table
from flowjax.sweeps.rows import SCHEMA
from flowjax_benchmarks.record import command_line, record, say, write_result
from flowjax_experiments.attention import Attention
from flowjax_experiments.lens import Lens

LAYERS, FRAMES, SIDE = 32, 16, 24
WORDS, VOCABULARY = 10, 30_000
"""Words at a place, of so many different ones."""

TASKS = 10
PIXELS = 448
TURNS = 3
SAMPLE = "task_0/00000"
MODEL = "made up"
EDGES = [(name, edge) for name, edges in EDGE_SETS.items() for edge in edges]


def run(*, samples: int = 1_000, json: Path | None = None) -> dict[str, Any]:
    """Measure, print, and write the result where it is asked for.

    samples: of the sweep.
    """
    with tempfile.TemporaryDirectory(prefix="flowjax-bench-") as folder:
        say("making runs up")
        rng = np.random.default_rng(0)
        runs = [
            _swept(Path(folder), samples, rng),
            _read(Path(folder), rng),
            _attended(Path(folder), rng),
        ]
        page = Path(folder) / "report.html"
        turns = []
        for turn in range(TURNS):
            say(f"turn {turn + 1} of {TURNS}")
            turns.append(_measure([*map(str, runs), "--out", str(page)]))
        size = page.stat().st_size
    sizes = {
        "samples": samples,
        "edges": len(EDGES),
        "layers": LAYERS,
        "frames": FRAMES,
        "tokens of a frame": [SIDE, SIDE],
        "words at a place": WORDS,
    }
    medians = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    result = sizes | medians | {"file MB": size / 1e6, "turns": turns}
    row = [f"{medians[name]:.1f}" for name in ("seconds", "CPU seconds")]
    row += [f"{medians['peak GB']:.2f}", f"{size / 1e6:.1f}"]
    Table("A report", ["of"], ["s", "CPU s", "peak GB", "file MB"],
          [[f"{samples:,} samples", *row]]).print()  # fmt: skip
    if json is not None:
        command = command_line("report", samples=samples, json=json)
        write_result(json, result | record(command, ["pyarrow", "jinja2", "matplotlib"]))
    return result


def _measure(arguments: list[str]) -> dict[str, float]:
    """One run of the command: how long, how much of the processors, how much memory."""
    load = os.getloadavg()[0]
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "flowjax.cli", "report", *arguments], stdout=subprocess.DEVNULL
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"flowjax report ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": seconds,
        "CPU seconds": used.ru_utime + used.ru_stime,
        "peak GB": used.ru_maxrss * unit / 1e9,
        "load before": load,
    }


def _swept(folder: Path, samples: int, rng: np.random.Generator) -> Path:
    """A sweep whose fourth edge matters in late layers."""
    shape = (samples, len(EDGES), LAYERS)
    sample, edge, layer = np.indices(shape, np.int32).reshape(3, -1)
    effect = (edge == 3) & (layer > 18)
    change = rng.normal(0, 5, effect.size) - 60 * effect * rng.random(effect.size)
    tasks = pa.array([f"task_{index % TASKS}" for index in range(samples)])
    names = pa.array([f"task_{index % TASKS}/{index:05d}" for index in range(samples)])
    columns = {
        "sample_id": names.take(pa.array(sample)),
        "task": tasks.take(pa.array(sample)),
        "edge_set": pa.array([name for name, _ in EDGES]).take(pa.array(edge)),
        "edge": pa.array([name for _, name in EDGES]).take(pa.array(edge)),
        "centre": pa.array(layer),
        "width": np.full(effect.size, 9),
        "style": ["center"] * effect.size,
        "relative_change": change,
    }
    return _folder(folder, "sweep", SCHEMA, columns)


def _read(folder: Path, rng: np.random.Generator) -> Path:
    """Lens words at every place of every frame."""
    at = np.indices((LAYERS, FRAMES, SIDE, SIDE), np.int32).reshape(4, -1)
    places = at.shape[1]
    words = pa.array([f"word{index}" for index in range(VOCABULARY)])
    ids = pa.array(rng.integers(0, VOCABULARY, places * WORDS, np.int32))
    columns = dict(zip(("layer", "frame", "row", "column"), at, strict=True)) | {
        "token_ids": _lists(ids, WORDS),
        "tokens": _lists(words.take(ids), WORDS),
        "probabilities": _lists(pa.array(rng.random(places * WORDS, np.float32)), WORDS),
    }
    run = _folder(folder, "lens", Lens.SCHEMA, columns)
    smooth = (np.indices((FRAMES, PIXELS, PIXELS)).sum(0) % 256)[..., None].repeat(3, -1)
    frames = (smooth + rng.integers(0, 30, smooth.shape)) % 256
    keep_pictures(run, [Pictures(SAMPLE, frames.astype(np.uint8), (0,))])
    return run


def _attended(folder: Path, rng: np.random.Generator) -> Path:
    """Attention to every place, as it was and with an edge cut."""
    knockout, layer, frame = np.indices((2, LAYERS, FRAMES), np.int32).reshape(3, -1)
    maps = len(layer)
    columns = {
        "knockout": knockout.astype(bool),
        "layer": layer,
        "frame": frame,
        "rows": np.full(maps, SIDE),
        "columns": np.full(maps, SIDE),
        "edge": ["video->question"] * maps,
        "cut_from": np.full(maps, 0),
        "cut_to": np.full(maps, LAYERS - 1),
        "weights": _lists(pa.array(rng.random(maps * SIDE**2, np.float32)), SIDE**2),
    }
    return _folder(folder, "attention", Attention.SCHEMA, columns)


def _lists(values: pa.Array, length: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(range(0, len(values) + 1, length), pa.int32()), values)


def _folder(folder: Path, analysis: str, schema: pa.Schema, columns: Mapping[str, Any]) -> Path:
    """A finished run; columns that are not given hold one value throughout."""
    run = folder / analysis
    run.mkdir()
    count = len(next(iter(columns.values())))
    given = {
        field.name: pa.array(columns[field.name]).cast(field.type)
        if field.name in columns
        else _throughout(field, count)
        for field in schema
    }
    pq.write_table(pa.table(given, schema=schema), run / "results.parquet")
    settings = {"analysis": analysis, "model": MODEL}
    (run / "manifest.json").write_text(js.dumps({"settings": settings}), encoding="utf-8")
    return run


def _throughout(field: pa.Field, count: int) -> pa.Array:
    of_text = {"sample_id": SAMPLE, "task": "task_0", "model": MODEL, "model_note": ""}
    if pa.types.is_boolean(field.type):
        value: object = True
    elif pa.types.is_floating(field.type):
        value = 0.1
    elif pa.types.is_integer(field.type):
        value = -1
    else:
        value = of_text.get(field.name, "A")
    return pa.array([value] * count).cast(field.type)
