"""`docs/tour.ipynb`, as a reader runs it."""

import ast
import json
import os
from pathlib import Path

import pytest

import flowjax
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


@pytest.mark.slow
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


def test_it_names_only_what_is_public_and_keeps_no_outputs():
    cells = [c for c in json.loads(TOUR.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    nodes = list(ast.walk(ast.parse("\n".join("".join(cell["source"]) for cell in cells))))
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)
             and isinstance(node.value, ast.Name) and node.value.id == "fj"}  # fmt: skip
    assert {"load", "ask", "knockout", "sweep", "Patch", "logit_lens"} <= named
    assert named <= set(flowjax.__all__)
    imported = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"json", "pathlib", "jax.numpy", "flowjax"}
