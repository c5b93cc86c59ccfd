"""Printed tables."""

import pytest

from flowjax.report import table
from flowjax.report.statistics import Interval
from flowjax.report.table import JUDGED, LAYER, Table, judged

EDGE = "question_stem->true_option"


@pytest.mark.parametrize("width", [table.WIDTH, 60])
def test_no_character_of_a_name_is_lost(width, capsys, monkeypatch):
    """Names are whole where they fit, and folded on narrower lines."""
    monkeypatch.setattr(table, "WIDTH", width)
    numbers = ["12", "6", *judged(Interval(12, -100.0, -100.0, -100.0, 1e-4), "+.1f")]
    titles = ["n", LAYER, "change %", *JUDGED]
    row = ["video", "scene_transition", EDGE, *numbers]
    Table("a title", ["model", "task", "edge cut"], titles, [row], "a note").print()
    printed = capsys.readouterr().out
    lines = [line.split("\u2502")[1:-1] for line in printed.splitlines() if "\u2502" in line]
    cells = ["".join(map(str.strip, column)) for column in zip(*lines, strict=True)]
    assert [cell.replace(" ", "") for cell in cells] == [cell.replace(" ", "") for cell in row]
    assert max(map(len, printed.splitlines())) <= width
    assert (len(lines) == 1) == (width == 116)
