import json
import re

import numpy as np
import pyarrow as pa
import pytest

from flowjax.errors import FlowjaxError
from flowjax.report.page import flow
from flowjax.report.page.lanes import lanes
from flowjax.report.page.page import make_page
from flowjax.report.page.sample import OnSample, TokensCut, section
from flowjax.report.page.section import Folded, Section, Widget
from flowjax.report.table import Table
from flowjax.sweeps.rows import SCHEMA
from tests.report.tables import sweep_table

EDGES = {"cross-frame": ["cross_frame"], "vql-to-ql": ["video->question", "question->last"]}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u2028\u202eabc"


def of_tasks(change, tasks=("one", "two"), model="m", samples=8, edges=EDGES):
    tables = []
    for task in tasks:
        table = sweep_table(edges, change, samples=samples, model=model)
        index = SCHEMA.names.index("sample_id")
        names = [f"{task}/{name}" for name in table["sample_id"].to_pylist()]
        table = table.set_column(index, SCHEMA.field("sample_id"), pa.array(names))
        index = SCHEMA.names.index("task")
        tables.append(
            table.set_column(index, SCHEMA.field("task"), pa.array([task] * table.num_rows))
        )
    return pa.concat_tables(tables)


def falls(edge, sample, layer):
    return -50.0 * (edge == "question->last" and layer > 2) + np.sin(7.0 * sample + layer)


def test_lanes_follow_the_prompt():
    ids = [lane["id"] for lane in lanes(["cross_frame", "video->question"])["lanes"]]
    assert ids == [
        "video", "question_stem", "true_option", "false_options", "instruction", "last",
    ]  # fmt: skip
    edges = ["frame_10->last", "frame_2->option_B", "options->last", "system->video", "odd->last"]
    found = lanes(edges)
    ids = [lane["id"] for lane in found["lanes"]]
    assert ids == [
        "system", "frame_2", "frame_10", "question_stem", "option_B", "odd", "instruction", "last",
    ]  # fmt: skip
    assert found["lanes"][1]["label"] == "frame 3"
    assert [(box["id"], ids[box["first"]], ids[box["last"]]) for box in found["boxes"]] == [
        ("question", "question_stem", "option_B"), ("options", "option_B", "option_B"),
        ("video", "frame_2", "frame_10"),
    ]  # fmt: skip


def test_a_map_holds_what_curves_say():
    (curves, section) = flow.sections([flow.Swept("m", of_tasks(falls))])
    (widget,) = section.parts
    assert isinstance(widget, Widget)
    data = widget.data
    assert curves.parts[0].data is data
    assert data["tasks"] == ["all tasks", "one", "two"]
    assert [view["n"] for view in data["views"]] == [16, 8, 8]
    edge, n, layers, mean, low, high, p = data["views"][0]["edges"][2]
    assert data["edges"][edge]["parts"] == [("question", "last")]
    assert (n, layers) == (16, [1, 2, 3, 4, 5])
    assert mean[3] == pytest.approx(-50 + np.mean(np.sin(7.0 * np.arange(8) + 3)), abs=0.01)
    assert low[3] < mean[3] < high[3] and p[3] < 0.01
    assert [stage["short"] for stage in data["views"][0]["stages"]][2] == "layers 4-5"
    assert "layers 4-5" in section.summary[0]


def test_tokens_and_patches_are_not_on_the_map():
    edges = {"custom": ["question_stem[3]->last"], "patch": ["residual:last"]}
    (only,) = flow.sections([flow.Swept("m", sweep_table(edges))])
    assert only.key == "curves" and only.title == "Every edge by layer"
    (patched,) = flow.sections([flow.Swept("m", sweep_table({"patch": ["residual:frame_0"]}))])
    assert patched.title == "Patched states by layer"
    assert patched.parts[0].data["edges"][0]["name"] == "frame 1 (residual)"
    edges["set"] = ["video->last"]
    data = flow.sections([flow.Swept("m", sweep_table(edges))])[1].parts[0].data
    assert [edge["parts"] for edge in data["edges"]] == [[], [], [("video", "last")]]
    assert len(data["lanes"]) == 6


def test_a_sweep_of_heads_says_its_largest_change():
    rows = of_tasks(falls, tasks=("one",))
    index, field = SCHEMA.names.index("head"), SCHEMA.field("head")
    heads = pa.array([2] * rows.num_rows).cast(field.type)
    of_heads = rows.set_column(index, field, heads)
    (said,) = flow.sections([flow.Swept("m", of_heads)])[1].summary
    assert re.fullmatch(r"m \(one\): the largest change is -5\d\.\d%, by cutting "
                        r"question . last in head 2 at layer \d\.", said)  # fmt: skip


def test_two_models_are_paired_over_the_samples_they_share():
    a = of_tasks(lambda *at: 0.2 * falls(*at), model="a")
    b = of_tasks(falls, tasks=("two", "three"), model="b")
    sections = {section.key: section for section in flow.sections(
        [flow.Swept("first", a), flow.Swept("second", b)]
    )}  # fmt: skip
    data = sections["pair"].parts[0].data
    assert [run["label"] for run in data["runs"]] == [
        "first",
        "second",
        "second \N{MINUS SIGN} first",
    ]
    assert data["beside"] and data["tasks"] == ["two"]
    edge = data["views"][2]["edges"][2]
    assert edge[1] == 8
    assert edge[3][3] == pytest.approx(0.8 * falls_mean(3), abs=0.01)
    assert edge[6][3] < 0.05 < edge[6][0]
    other = of_tasks(falls, tasks=("three",), model="c")
    assert "pair" not in {
        section.key for section in flow.sections([flow.Swept("a", a), flow.Swept("c", other)])
    }


def falls_mean(layer):
    return np.mean([falls("question->last", sample, layer) for sample in range(8)])


def test_everything_from_data_is_text():
    table = Table(HOSTILE, [HOSTILE], [], [[HOSTILE]], HOSTILE)
    folded = Folded(HOSTILE, [HOSTILE, table])
    widget = Widget("flow", {"text": HOSTILE})
    section = Section("x", HOSTILE, HOSTILE, [folded, widget, widget], [HOSTILE])
    page = make_page(HOSTILE, [section], [HOSTILE])
    assert page.html.count("<script") == 2, "the data, once, and the page's own"
    assert "<img" not in page.html
    (data,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.html)
    assert json.loads(data) == {"text": HOSTILE}
    assert "\u2028" not in data
    assert f'srcdoc="{"&lt;!DOCTYPE html&gt;"}' in page._repr_html_()


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    page = make_page("t", [])
    assert page.save(tmp_path / "a" / "b.html").read_text() == page.html
    (tmp_path / "file").write_text("")
    with pytest.raises(FlowjaxError, match="cannot be"):
        page.save(tmp_path / "file" / "x.html")
    with pytest.raises(FlowjaxError, match="cannot be"):
        page.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file"]


def test_runs_of_a_model_show_one_sample_together():
    def part(**more):
        return OnSample("m", "s", "t", "What?", "A", "B", **more)

    frames = np.zeros((2, 4, 4, 3), np.uint8)
    cut = TokensCut("stem > last", ["a", "b"], [1, 3], np.array([[1.0, -2.0], [0.5, 0.0]]))
    other = OnSample("n", "s", "t", "What?", "B", "B")
    found = section([part(frames=frames), part(tokens=[cut]), other])
    first, second = found.parts[0].data["samples"]
    assert (first["label"], second["label"]) == ("s (m)", "s (n)")
    assert len(first["frames"]) == 2 and first["tokens"][0]["change"] == [[1, -2], [0.5, 0]]
    assert second["frames"] == [] and second["options"] is None
    assert section([]) is None
