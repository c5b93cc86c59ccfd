"""Reading benchmarks in TVBench's layout: untrusted files, named errors."""

import json

import pytest

from flowjax.data.tvbench import read_tvbench
from flowjax.errors import FlowjaxError

GOOD = {"question": "What moves?", "candidates": ["a", "b"], "answer": "b", "video": "clip.mp4"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def benchmark(tmp_path):
    def make(**tasks):
        folder = tmp_path / "benchmark"
        (folder / "json").mkdir(parents=True, exist_ok=True)
        for task, entries in tasks.items():
            (folder / "json" / f"{task}.json").write_text(json.dumps(entries), encoding="utf-8")
        return folder

    return make


def test_questions_come_in_the_files_order(benchmark):
    many = [GOOD | {"question": f"Number {index}? é"} for index in range(30)]
    timed = [GOOD | {"start": 1, "end": 2.5, "candidates": [1, 2], "answer": 2}]
    folder = benchmark(object_count=many, action_localization=timed)
    samples = read_tvbench(folder)
    assert [s.sample_id for s in samples] == [
        "action_localization/0",
        *(f"object_count/{index}" for index in range(30)),
    ]
    assert (samples[0].start, samples[0].end) == (1.0, 2.5)
    assert samples[0].question.options == ("1", "2") and samples[0].question.answer == "B"
    assert samples[7].question.stem == "Number 6? é"
    assert samples[7].start is None and samples[7].end is None
    assert samples[7].video == folder / "video" / "object_count" / "clip.mp4"
    chosen = read_tvbench(folder, ["object_count"], limit=3)
    assert [s.sample_id for s in chosen] == [f"object_count/{index}" for index in range(3)]


def test_a_changed_file_is_read_anew(benchmark):
    assert read_tvbench(benchmark(a=[GOOD]))[0].question.stem == "What moves?"
    changed = benchmark(a=[GOOD | {"question": "What else?"}])
    assert read_tvbench(changed)[0].question.stem == "What else?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": ""}, "entry 1: question must be a text"),
        ({"question": None}, "entry 1: question must be a text"),
        ({"candidates": "ab"}, "entry 1: candidates must be a list"),
        ({"candidates": ["b"]}, "entry 1: candidates must be 2 to 26; it has 1"),
        ({"answer": "c"}, "entry 1: answer 'c' must be exactly one of the candidates"),
        ({"candidates": ["b", "b"]}, "must be exactly one of the candidates"),
        ({"video": "../../secret.mp4"}, "must lie in the task's folder"),
        ({"video": "/etc/passwd"}, "must lie in the task's folder"),
        ({"start": "soon"}, "entry 1: start must be a number of seconds"),
        ({"end": float("inf")}, "entry 1: end must be a number of seconds"),
    ],
)
def test_a_bad_entry_is_named(benchmark, change, message):
    folder = benchmark(moving_direction=[GOOD, GOOD | change])
    with pytest.raises(FlowjaxError, match=message) as error:
        read_tvbench(folder)
    assert "moving_direction.json" in str(error.value)


def test_bad_folders_tasks_and_limits(benchmark, tmp_path):
    with pytest.raises(FlowjaxError, match="not a benchmark in TVBench's layout"):
        read_tvbench(tmp_path)
    folder = benchmark(a=[GOOD], b=[GOOD])
    with pytest.raises(FlowjaxError, match=r"task 'c' does not exist; .* has a, b"):
        read_tvbench(folder, ["c"])
    with pytest.raises(FlowjaxError, match="at least 1"):
        read_tvbench(folder, limit=0)
    (folder / "json" / "a.json").write_text("{")
    with pytest.raises(FlowjaxError, match=r"a\.json cannot be read as JSON"):
        read_tvbench(folder)
    with pytest.raises(FlowjaxError, match="must hold a list"):
        read_tvbench(benchmark(a={}))
    with pytest.raises(FlowjaxError, match="letters, digits"):
        read_tvbench(benchmark(a=[GOOD], **{"two words": [GOOD]}))
