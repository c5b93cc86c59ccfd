"""Annotations in the layout of VideoChat2-IT."""

import json

import pytest

from flowjax.data.videochat2 import Turn, read_instructions
from flowjax.errors import FlowjaxError

GOOD = {"video": "a/b.mp4", "QA": [{"i": "Be short.", "q": "What falls? ", "a": " A cup."}]}


def read(tmp_path, *entries):
    file = tmp_path / "it.json"
    file.write_text(json.dumps(entries))
    return read_instructions(file, tmp_path / "videos")


def test_every_form_of_an_entry_is_read(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "c.mkv").touch()
    caption = {"video": "c", "start": 1.5, "end": "4", "QA": [{"i": "Describe it.", "a": "A cat."}]}
    plain = {"video": "d.webm", "QA": [{"q": "Who?", "a": "Ann"}, {"i": "", "q": "Why?", "a": "x"}]}
    one, two, three = read(tmp_path, GOOD, caption, plain)
    assert one.video == tmp_path / "videos" / "a" / "b.mp4" and one.start is None
    assert one.turns == (Turn("Be short.\nWhat falls?", "A cup."),)
    assert two.video.name == "c.mkv" and (two.start, two.end) == (1.5, 4)
    assert two.turns == (Turn("Describe it.", "A cat."),)
    assert [turn.question for turn in three.turns] == ["Who?", "Why?"]
    assert three.name.endswith("it.json: entry 2")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"video": "../x.mp4"}, "entry 1: video '../x.mp4' must lie in the folder of videos"),
        ({"video": 1.5}, "entry 1: video"),
        ({"QA": []}, "entry 1: QA must be a list"),
        ({"QA": "what?"}, "entry 1: QA must be a list"),
        ({"QA": ["what?"]}, "entry 1: QA 0: must be an object with q and a"),
        ({"QA": [{"q": "What?"}]}, "entry 1: QA 0: a"),
        ({"QA": [{"q": "", "i": "", "a": "x"}]}, "entry 1: QA 0: q is missing"),
        ({"QA": [{"q": "\ud800", "a": "x"}]}, "entry 1: QA 0: q is no text"),
        ({"start": "soon"}, "entry 1: start must be a number of seconds"),
    ],
)
def test_what_is_not_well_formed_is_named(tmp_path, change, said):
    with pytest.raises(FlowjaxError, match=said):
        read(tmp_path, GOOD, GOOD | change)


def test_a_file_without_entries(tmp_path):
    with pytest.raises(FlowjaxError, match=r"it\.json must hold a list"):
        read(tmp_path)
