"""`docs/tour.ipynb`, as a reader runs it."""

import os
from pathlib import Path

import pytest

from flowjax.data.shapes.benchmark import write_benchmark
from flowjax.data.shapes.tasks import VIDEO_TASKS
from flowjax_convert.run import convert
from flowjax_experiments.shapes import PAIR

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The executed notebook, in a folder that looks to it like `docs` after `make demo`."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    root = tmp_path_factory.mktemp("tour")
    inputs = root / "runs" / "demo-inputs"
    write_benchmark(inputs / "shapes", split="test", per_task=3, tasks=tuple(VIDEO_TASKS)[:2])
    convert(PAIR / "video", inputs / "video-model")
    (root / "docs").mkdir()
    notebook = nbformat.read(TOUR, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(root / "docs")}}
    )
    client.execute(env={**os.environ, "PYTHONPATH": str(TOUR.parents[1])})
    return root, notebook


def shown(cell) -> dict[str, str]:
    return {kind: text for output in cell.outputs for kind, text in output.get("data", {}).items()}


def test_every_cell_runs_and_shows_what_it_says(ran):
    root, notebook = ran
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert 12 <= len(cells) <= 18
    for cell in cells[1:]:
        assert shown(cell), cell.source
    kinds = [set(shown(cell)) for cell in cells]
    assert "text/html" in kinds[1], "frames and prompt"
    (page,) = (shown(cell)["text/html"] for cell in cells if cell.source.startswith("page = run"))
    assert page.startswith("<iframe sandbox=") and "The flow map" in page
    assert sum("image/png" in kind for kind in kinds) == 2
    assert (root / "runs" / "tour.html").stat().st_size > 50_000


def test_it_is_kept_without_outputs(ran):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(TOUR, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
