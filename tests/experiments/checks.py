"""What is checked of every run of an analysis."""

import base64
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowjax.asked.asked import Asked
from flowjax.data.video import read_frames
from flowjax.models.checkpoint import load_model
from flowjax.runs.analysis import Analysis
from flowjax.runs.columns import make_table, shared_columns


def rows_of(out: Path) -> list[dict]:
    return pq.read_table(out / "results.parquet").to_pylist()


def rows_of_sample(analysis: Analysis, asked: Asked) -> pa.Table:
    """What the runner would store of one sample, whatever its answer."""
    measured = analysis.start(asked.model, [asked.sample], "all").measure(asked, lambda part: None)
    assert measured is not None
    shared = shared_columns(asked, measured.answer)
    return make_table(measured.rows(), shared, analysis.SCHEMA)


def _refuse(*arguments, **options):
    raise AssertionError("a figure needs neither a model nor a video")


def without_models_and_videos(patch: pytest.MonkeyPatch) -> int:
    """Make every name that is bound to a loader refuse; how many there are."""
    found = 0
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is load_model or value is read_frames:
                patch.setattr(module, name, _refuse)
                found += 1
    return found


def assert_redrawn(flowjax, out: Path, printed: str) -> None:
    """`flowjax figures` draws the same figures and prints the same summary, without a model."""
    figures = sorted((out / "figures").iterdir())
    before = {path: path.read_bytes() for path in figures}
    assert before
    for path in figures:
        assert before[path].startswith(b"\x89PNG") and len(before[path]) > 10_000
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        assert without_models_and_videos(patch) > 2
        again = flowjax("figures", out)
    assert again.code == 0, again.err
    assert again.out == printed
    assert {path: path.read_bytes() for path in sorted((out / "figures").iterdir())} == before
    for path in figures:
        assert str(path) in printed


def line_of(printed: str, first: object) -> str:
    """The line of a printed table whose first cell says this."""
    lines = [line for line in printed.splitlines() if "\u2502" in line]
    (found, *_) = [line for line in lines if line.split("\u2502")[1].strip() == str(first)]
    return found


def settings_of(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())["settings"]


def assert_refused(result, *words: str) -> None:
    """One line on standard error, exit code 2."""
    assert result.code == 2, result.err
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, result.err
    for word in words:
        assert word in lines[0], lines[0]


def sample_on_page(flowjax, tmp_path, *runs):
    """What the page of some runs holds of its first sample."""
    out = tmp_path / "report.html"
    result = flowjax("report", *runs, "--out", out)
    assert result.code == 0, result.err
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', out.read_text())
    (found,) = [of for of in map(json.loads, data) if "samples" in of]
    return found["samples"][0]


def array_of(packed):
    """An array as a page holds it."""
    kind = {1: np.uint8, 2: np.uint16, 4: np.uint32}[packed["bytes"]]
    return np.frombuffer(base64.b64decode(packed["data"]), kind).reshape(packed["shape"])
