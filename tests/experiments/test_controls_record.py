"""`docs/controls.md` and what it is taken from."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flowjax.data.shapes.tasks import VIDEO_TASKS
from flowjax_experiments.shapes.controls import CONTROLS
from flowjax_experiments.shapes.controls_table import summarise, table_of
from flowjax_experiments.shapes.effects import SCHEMA

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def rows():
    return pq.read_table(DOCS / "findings" / "controls.parquet")


@pytest.fixture(scope="module")
def recorded():
    return json.loads((DOCS / "findings" / "controls.json").read_text())


def test_the_record_is_of_the_rows(rows, recorded):
    assert rows.schema.equals(SCHEMA)
    name = "main, seed 1"
    some = rows.filter(pc.equal(rows["model"].cast(pa.string()), name))
    assert json.loads(json.dumps(summarise(some))) == {name: recorded[name]}


def test_every_control_is_there(recorded):
    assert {control.name for control in CONTROLS} < set(recorded)


def is_effect(of) -> bool:
    return of["p"] < 0.05 and not of["low"] <= 0 <= of["high"]


def test_the_text_quotes_the_record(recorded):
    text = (DOCS / "controls.md").read_text()
    for name, of in recorded.items():
        cells = []
        for task in VIDEO_TASKS:
            effect, accuracy = of["effects"][task]["cross_frame 1-8"], of["accuracy"][task]["mean"]
            cell = f"{accuracy:.2f} ({accuracy + effect['mean']:.2f})"
            cells.append(f"**{cell}**" if is_effect(effect) else cell)
        assert f"| {name} | {' | '.join(cells)} |" in text


def test_what_the_text_concludes(recorded):
    def lost(name, layers="1-4"):
        return recorded[name]["effects"]["moving_direction"][f"cross_frame {layers}"]

    taught = [
        control.name
        for control in CONTROLS
        if control.motion and not control.shuffled and control.questions == "video"
    ]
    assert len(taught) == 7
    for name in taught:
        assert is_effect(lost(name)) and lost(name)["mean"] <= -0.2
    for name in ("image", "no motion stage", "no motion stage, seed 1"):
        assert not is_effect(lost(name, "1-8"))
    for of in recorded.values():
        assert not any(is_effect(of["effects"][task]["cross_frame 5-8"]) for task in VIDEO_TASKS)


def test_the_table_marks_effects(recorded):
    table = table_of({"main": recorded["main"]}, "object_count")
    assert table.rows[0][0] == "main" and table.rows[0][2].endswith("*")
    assert not table.rows[0][4].endswith("*")
