import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from flowjax.errors import FlowjaxError
from flowjax.report import pair
from flowjax.report.pair import draw_pair
from tests.report.tables import sweep_table

EDGES = {"vql-to-ql": ["video->question", "question->last"], "cross-frame": ["cross_frame"]}
TASKS = ("moving_direction", "scene_transition")


def change(size: float):
    return lambda edge, sample, layer: -size * layer - sample


def rows(task: str, size: float) -> pa.Table:
    table = sweep_table(EDGES, change(size))
    column = pa.array([task] * table.num_rows)
    return table.set_column(
        table.schema.get_field_index("task"), table.schema.field("task"), column
    )


def tables() -> dict[str, pa.Table]:
    """The image model has no right answers to the second task."""
    return {
        "image model": rows(TASKS[0], 2.0),
        "video model": pa.concat_tables([rows(task, 9.0) for task in TASKS]),
    }


@pytest.fixture
def figure(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(pair, "save_figure", lambda figure, path: seen.append(figure) or path)
    draw_pair(tables(), tmp_path / "pair.png")
    return seen[0]


def test_a_panel_for_every_task_and_edge_set(figure):
    assert len(figure.axes) == 4
    assert [axes.get_title() for axes in figure.axes[:2]] == list(EDGES)
    assert figure.axes[0].get_ylabel().startswith("moving direction")
    assert figure.axes[2].get_ylabel().startswith("scene transition")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["image model", "video model"]


def test_a_line_for_every_edge_and_model(figure):
    _zero, *lines = figure.axes[0].lines
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--", "--"]
    assert [line.get_color() for line in lines[:2]] == [line.get_color() for line in lines[2:]]
    for line, size in zip(lines, (2.0, 2.0, 9.0, 9.0), strict=True):
        np.testing.assert_allclose(line.get_ydata(), -size * np.arange(5) - 1.5)
        assert line.get_xdata().tolist() == [1, 2, 3, 4, 5]


def test_a_model_without_right_answers_has_no_line(figure):
    _zero, *lines = figure.axes[2].lines
    assert [line.get_linestyle() for line in lines] == ["--", "--"]
    assert "n = 0, 4" in [text.get_text() for text in figure.axes[2].texts]


def test_noise_around_zero_stays_small(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(pair, "save_figure", lambda figure, path: seen.append(figure) or path)
    draw_pair({"a model": rows(TASKS[0], 0.1)}, tmp_path / "pair.png")
    low, high = seen[0].axes[0].get_ylim()
    assert low <= -20 and high >= 10


def test_edges_are_named_under_the_last_row(figure):
    assert figure.axes[0].get_legend() is None
    names = [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    assert names == ["video->question", "question->last"]


def test_the_figure_is_a_png(tmp_path):
    with Image.open(draw_pair(tables(), tmp_path / "new" / "pair.png")) as image:
        assert image.format == "PNG"
        assert image.height > image.width / 4


def test_no_rows_at_all(tmp_path):
    with pytest.raises(FlowjaxError, match="no rows"):
        draw_pair({"a": tables()["image model"].slice(0, 0)}, tmp_path / "pair.png")
