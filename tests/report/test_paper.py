import re

import pytest

from flowjax.report.canvas import save_figure
from flowjax.report.figures import draw_sweep, draw_tasks
from flowjax.report.paper import DOUBLE, SINGLE, for_paper
from tests.browser.pages import swept
from tests.report.tables import sweep_table

EDGES = {"set": ["video->question", "a_group_with_a_name->another_group", "video->last"]}


@pytest.fixture
def figure():
    (figure,) = draw_sweep(sweep_table(EDGES)).values()
    return figure


def sizes(data: bytes) -> list[float]:
    """Width and height of a PDF's page, in inches."""
    (box,) = re.findall(rb"/MediaBox \[ *0 0 ([\d.]+) ([\d.]+) *\]", data)
    return [float(part) / 72 for part in box]


def test_one_panel_is_one_column_wide(figure, tmp_path):
    caption = for_paper(figure)
    assert caption.startswith("set: a-model") and "n = 4" in caption
    data = save_figure(figure, tmp_path / "a.pdf").read_bytes()
    assert sizes(data)[0] == pytest.approx(SINGLE, abs=0.01)
    assert figure.get_suptitle() == ""
    # TrueType, whole in the file; Type 3 is what journals refuse.
    assert b"/Subtype /Type0" in data and b"/FontFile2" in data and b"/Type3" not in data
    figure.draw_without_rendering()
    for text in figure.legends[0].get_texts():
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_panels_take_both_columns(tmp_path):
    for figure in draw_tasks(swept("m", 1.0)).values():
        for_paper(figure)
        data = save_figure(figure, tmp_path / "a.pdf").read_bytes()
        assert sizes(data)[0] == pytest.approx(DOUBLE, abs=0.01)
        assert all(6 <= text.get_fontsize() <= 8 for text in figure.axes[0].get_xticklabels())


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_the_same_figure_has_the_same_bytes(figure, tmp_path, form):
    first = save_figure(figure, tmp_path / f"a.{form}").read_bytes()
    assert save_figure(figure, tmp_path / f"b.{form}").read_bytes() == first
    assert b"<text" not in first, "text in SVG is shapes"
