"""What is checked of every run of an analysis."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest


def rows_of(out: Path) -> list[dict]:
    return pq.read_table(out / "results.parquet").to_pylist()


LOADERS = ["flowjax.models.checkpoint.load_model", "flowjax.lens.pictures.read_frames"]
EXPERIMENTS = ("attention", "lens", "pathways", "probability")


def _refuse(*arguments, **options):
    raise AssertionError("a figure needs neither a model nor a video")


def assert_redrawn(flowjax, out: Path, printed: str) -> None:
    """`flowjax figures` draws the same figures and prints the same summary, without a model."""
    figures = sorted((out / "figures").iterdir())
    before = {path: path.read_bytes() for path in figures}
    assert before
    for path in figures:
        assert before[path].startswith(b"\x89PNG") and len(before[path]) > 10_000
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        for name in [*LOADERS, *(f"flowjax_experiments.{name}.load_model" for name in EXPERIMENTS)]:
            patch.setattr(name, _refuse)
        again = flowjax("figures", out)
    assert again.code == 0, again.err
    assert again.out == printed
    assert {path: path.read_bytes() for path in sorted((out / "figures").iterdir())} == before
    for path in figures:
        assert str(path) in printed


def settings_of(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())["settings"]


def assert_refused(result, *words: str) -> None:
    """One line on standard error, exit code 2."""
    assert result.code == 2, result.err
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, result.err
    for word in words:
        assert word in lines[0], lines[0]
