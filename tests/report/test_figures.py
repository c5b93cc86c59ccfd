import itertools
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from flowjax.errors import FlowjaxError
from flowjax.report.canvas import save_figure
from flowjax.report.figures import draw_accuracy, draw_sweep, draw_tasks
from flowjax.report.marks import COLOURS, LINES, MARKERS
from tests.report.tables import sweep_table

NOTE = "random weights: shows that the pipeline works, not how a trained model behaves"
EDGES = {
    "vql-to-ql": ["video->question", "video->last", "question->last", "last->last"],
    "cross-frame": ["cross_frame"],
}


def draw_all(table):
    return list(draw_sweep(table).values())


def texts(figure) -> str:
    """All text in a figure; drawing it has laid it out."""
    (axes, *_) = figure.axes
    found = [figure.get_suptitle(), axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
    found += [text.get_text() for box in figure.legends for text in box.get_texts()]
    found += [label.get_text() for label in axes.get_yticklabels()]
    return "\n".join(found)


def wave(edge: str, sample: int, layer: int) -> float:
    return -50 * np.exp(-((layer - len(edge) / 3) ** 2)) + 4.0 * (sample % 3 - 1)


def test_a_figure_for_each_edge_set_is_saved_whole(tmp_path):
    folder = tmp_path / "new" / "figures"
    figures = draw_sweep(sweep_table(EDGES, wave))
    assert list(figures) == ["vql-to-ql", "cross-frame"]
    paths = [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]
    assert sorted(folder.iterdir()) == sorted(paths)  # and no temporary files
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.width == 1300  # 6.5 inches at 200 dots
            assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
            assert 700 <= image.height <= 900


def test_lines_show_the_means():
    table = sweep_table(EDGES, wave, samples=6, layers=8)
    drawn = draw_all(table)
    (axes,) = drawn[0].axes
    zero, *lines = axes.get_lines()
    assert set(zero.get_ydata()) == {0}
    assert len(lines) == len(axes.collections) == 4
    for edge, line, band in zip(EDGES["vql-to-ql"], lines, axes.collections, strict=True):
        wanted = [np.mean([wave(edge, s, layer) for s in range(6)]) for layer in range(8)]
        assert line.get_xdata().tolist() == list(range(1, 9))
        np.testing.assert_allclose(line.get_ydata(), wanted)
        extent = band.get_datalim(axes.transData)
        assert extent.y0 < min(wanted)
        assert extent.y1 > max(wanted)
        np.testing.assert_allclose(band.get_facecolor()[0, :3], to_rgb(line.get_color()))
        assert edge.replace("->", " → ") in texts(drawn[0])


def test_lines_differ_by_colour_dash_and_marker():
    drawn = draw_all(sweep_table({"set": [f"frame_{i}->last" for i in range(7)]}, wave))
    lines = drawn[0].axes[0].get_lines()[1:]
    assert len({line.get_color() for line in lines}) == 7
    assert len({line.get_marker() for line in lines}) == 7
    pairs = [(line.get_linestyle(), line.get_marker()) for line in lines]
    assert len(set(pairs)) == 7
    for before, after in itertools.pairwise(lines):
        assert before.get_linestyle() != after.get_linestyle()
    assert len(set(COLOURS)) == len(set(MARKERS)) == 7
    assert len(set(LINES)) == 4


def test_titles_say_what_is_shown():
    drawn = draw_all(sweep_table(EDGES, wave, samples=6, width=9, note=NOTE))
    shown = texts(drawn[1])
    assert "cross-frame: a-model" in shown
    assert (
        "window 9 layers, center; n = 6; band: pointwise 95% studentised bootstrap interval"
        in shown.replace("\n", " ")
    )
    assert NOTE in shown
    assert "layer" in shown
    assert "%" in drawn[1].axes[0].get_ylabel()


def test_without_a_note_none_is_shown():
    drawn = draw_all(sweep_table(EDGES, wave))
    assert "random" not in texts(drawn[0])
    assert drawn[0].get_suptitle().count("\n") == 1


@pytest.mark.parametrize("samples", [1, 5])
def test_few_samples_have_no_band_and_the_title_says_so(samples):
    drawn = draw_all(sweep_table(EDGES, wave, samples=samples))
    assert not drawn[0].axes[0].collections
    assert f"n = {samples}; too few for a bootstrap interval" in texts(drawn[0])
    right = draw_accuracy(sweep_table(EDGES, wave, samples=samples))["vql-to-ql-accuracy"]
    assert len(right.axes[0].collections) == 4
    assert f"n = {samples}; band: 95% score interval" in texts(right)


def test_styles_without_a_width_show_none():
    drawn = draw_all(sweep_table(EDGES, wave, style="top_down", width=9))
    assert "window top-down" in texts(drawn[0])
    assert "9" not in drawn[0].get_suptitle().replace("95%", "")


def test_many_edges_become_a_heat_map():
    edges = [f"frame_{index}->last" for index in range(11)]
    table = sweep_table({"set": edges}, lambda edge, s, layer: 9.0 * layer - len(edge), note=NOTE)
    drawn = draw_all(table)
    axes = drawn[0].axes[0]
    (image,) = axes.get_images()
    wanted = [[9.0 * layer - len(edge) for layer in range(5)] for edge in edges]
    np.testing.assert_allclose(image.get_array(), wanted)
    assert image.norm.vmin == -image.norm.vmax  # zero has the middle colour
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [edge.replace("->", " → ").replace("_", " ") for edge in edges]
    assert NOTE in texts(drawn[0])


def test_chosen_centres_keep_their_places_in_a_heat_map():
    edges = [f"frame_{index}->last" for index in range(8)]
    table = sweep_table({"set": edges}, lambda edge, s, layer: 9.0 * layer + 1)
    (figure,) = draw_all(table.filter(pc.field("centre").isin([1, 4])))
    (image,) = figure.axes[0].get_images()
    assert image.get_extent()[:2] == [1.5, 5.5]  # layers 2 to 5
    np.testing.assert_array_equal(image.get_array().mask[0], [False, True, True, False])
    np.testing.assert_allclose(image.get_array()[0].compressed(), [10, 37])


@pytest.mark.parametrize("count", [1, 4, 7, 11])
def test_long_names_stay_inside(count, tmp_path):
    edges = [f"frame_{i}->false_options+" * 3 + f"option_{i}->last" for i in range(count)]
    table = sweep_table({"set": edges}, wave, model="a-long/model-name-" * 6, note=NOTE * 2)
    (figure,) = draw_all(table)
    with Image.open(save_figure(figure, tmp_path / "a.png")) as image:
        pixels = np.asarray(image.convert("L")).copy()
    border = np.concatenate([pixels[:2].ravel(), pixels[-2:].ravel(), pixels[:, :2].ravel()])
    assert border.min() == 255
    assert pixels[:, -2:].min() == 255
    for text in [figure._suptitle, *(text for box in figure.legends for text in box.get_texts())]:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= 1300


def test_names_are_not_formulas():
    table = sweep_table({"set": ["$a->b", "x_{->y$^"]}, wave, model="$m_{", note="100$ or $^2")
    drawn = draw_all(table)
    assert "$m_{" in texts(drawn[0])


def test_same_results_give_the_same_bytes(tmp_path):
    table = sweep_table(EDGES, wave)
    first, again = (
        [save_figure(f, tmp_path / f"{name}.png").read_bytes() for name, f in drawn.items()]
        for drawn in (draw_sweep(table), draw_sweep(table))
    )
    assert first == again


def test_edges_that_come_late_join_their_set():
    first = sweep_table({"a": ["x->y"], "b": ["x->z"]}, wave)
    late = sweep_table({"a": ["w->y"]}, wave, samples=1)
    drawn = draw_sweep(pa.concat_tables([first, late]))
    assert list(drawn) == ["a", "b"]
    assert len(drawn["a"].axes[0].get_lines()) == 3  # zero, and both edges


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\0b"])
def test_edge_set_that_is_no_file_name(name):
    with pytest.raises(FlowjaxError, match="cannot be the name"):
        draw_sweep(sweep_table({name: ["a->b"]}))


def test_no_rows():
    with pytest.raises(FlowjaxError, match="no rows"):
        draw_sweep(sweep_table(EDGES).slice(0, 0))


def test_no_global_state_of_matplotlib():
    code = "import sys, flowjax.report.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_right_answers_are_drawn_by_layer():
    """Answers are right where they fall by less than 25%."""
    table = sweep_table(EDGES, wave, samples=8)
    drawn = draw_accuracy(table)
    assert list(drawn) == ["vql-to-ql-accuracy", "cross-frame-accuracy"]
    lines = drawn["vql-to-ql-accuracy"].axes[0].get_lines()
    for edge, line in zip(EDGES["vql-to-ql"], lines, strict=True):
        right = [[wave(edge, s, layer) > -25 for s in range(8)] for layer in range(5)]
        np.testing.assert_allclose(line.get_ydata(), 100 * np.mean(right, axis=1))
    shown = texts(drawn["cross-frame-accuracy"]).replace("\n", " ")
    assert "without a knockout 100%" in shown
    assert "band: 95% score interval" in shown


def test_a_figure_for_each_task_of_several(tmp_path):
    one = sweep_table(EDGES, wave, samples=6, layers=8)
    index = one.schema.get_field_index("task")
    tasks = [
        one.set_column(index, one.schema.field(index), pa.array([name] * len(one)))
        for name in ("direction", "antonym")
    ]
    assert draw_tasks(tasks[0]) == {}
    drawn = draw_tasks(pa.concat_tables(tasks))
    assert list(drawn) == ["task-direction", "task-antonym"]
    for figure in drawn.values():
        assert len(figure.axes) == 2 * len(EDGES)
        wanted = [np.mean([wave("last->last", s, at) for s in range(6)]) for at in range(8)]
        assert any(np.allclose(line.get_ydata(), wanted) for line in figure.axes[0].get_lines())
        save_figure(figure, tmp_path / "task.png")
