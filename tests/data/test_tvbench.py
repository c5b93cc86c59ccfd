"""Reading benchmarks in TVBench's layout: untrusted files, named errors."""

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flowjax.data.benchmark import read_benchmark
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
    samples = read_benchmark(folder)
    assert [s.sample_id for s in samples] == [
        "action_localization/0",
        *(f"object_count/{index}" for index in range(30)),
    ]
    assert (samples[0].start, samples[0].end) == (1.0, 2.5)
    assert samples[0].question.options == ("1", "2") and samples[0].question.answer == "B"
    assert samples[7].question.stem == "Number 6? é"
    assert samples[7].start is None and samples[7].end is None
    assert samples[7].video == folder / "video" / "object_count" / "clip.mp4"
    chosen = read_benchmark(folder, ["object_count"], limit=3)
    assert [s.sample_id for s in chosen] == [f"object_count/{index}" for index in range(3)]


def test_nothing_is_left_among_temporary_files(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    read_benchmark(benchmark(a=[GOOD]))
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark", "cache"}


def test_a_changed_file_is_read_anew(benchmark):
    assert read_benchmark(benchmark(a=[GOOD]))[0].question.stem == "What moves?"
    changed = benchmark(a=[GOOD | {"question": "What else?"}])
    assert read_benchmark(changed)[0].question.stem == "What else?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": ""}, "entry 1: question must be a text"),
        ({"question": None}, "entry 1: question must be a text"),
        ({"question": "half \ud83d"}, "entry 1: question is no text: character 5 is U\\+D83D"),
        ({"candidates": "ab"}, "entry 1: candidates must be a list"),
        ({"candidates": ["b"]}, "entry 1: candidates must be 2 to 26; it has 1"),
        ({"candidates": ["b", " "]}, r"entry 1: option \(B\) is empty"),
        ({"candidates": ["b", "c", "b"]}, "entry 1: candidates has 'b' 2 times"),
        ({"candidates": ["b", "\udc00"]}, r"entry 1: option \(B\) is no text: character 0"),
        ({"answer": "c"}, "entry 1: answer 'c' must be one of the candidates"),
        ({"video": "../../secret.mp4"}, "entry 1: video .* must lie in the task's folder"),
        ({"video": "/etc/passwd"}, "entry 1: video .* must lie in the task's folder"),
        ({"start": "soon"}, "entry 1: start must be a number of seconds"),
        ({"end": float("inf")}, "entry 1: end must be a number of seconds"),
        ({"end": 10**400}, "entry 1: end must be a number of seconds"),
    ],
)
def test_one_bad_entry_is_a_sample_that_says_so(benchmark, change, message):
    folder = benchmark(moving_direction=[GOOD, GOOD | change, GOOD])
    samples = read_benchmark(folder)
    assert [sample.sample_id for sample in samples] == [f"moving_direction/{i}" for i in range(3)]
    assert not samples[0].problem and samples[2].question.stem == "What moves?"
    assert re.search(r"moving_direction\.json: " + message, samples[1].problem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"{}", "must hold a list of questions"),
        (b"[]", "must hold a list of questions"),
        (b"caf\xe9", "not text in UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS has not fetched"),
    ],
)
def test_a_bad_file_of_one_task_is_no_matter_to_others(benchmark, text, message):
    folder = benchmark(a=[GOOD], b=[GOOD])
    (folder / "json" / "a.json").write_bytes(text)
    bad, good = read_benchmark(folder)
    assert "a.json" in bad.problem and message in bad.problem and "\n" not in bad.problem
    assert good.sample_id == "b/0" and not good.problem
    (only,) = read_benchmark(folder, ["b"])
    assert only == good


def test_bad_folders_tasks_and_limits(benchmark, tmp_path):
    with pytest.raises(FlowjaxError, match=r"not a benchmark's folder\. .*tvbench: json/<task>"):
        read_benchmark(tmp_path)
    folder = benchmark(a=[GOOD], b=[GOOD])
    with pytest.raises(FlowjaxError, match=r"task 'c' does not exist; .* has a, b"):
        read_benchmark(folder, ["c"])
    with pytest.raises(FlowjaxError, match="at least 1"):
        read_benchmark(folder, limit=0)


def test_files_that_nobody_meant_and_names_of_any_kind(benchmark):
    folder = benchmark(a=[GOOD], **{"two words": [GOOD]})
    (folder / "json" / "._a.json").write_bytes(b"\0\5\x16\7Mac OS X")
    marked = b"\xef\xbb\xbf" + json.dumps([GOOD]).encode()
    Path(os.fsdecode(os.fsencode(folder) + b"/json/caf\xe9.json")).write_bytes(marked)
    samples = read_benchmark(folder)
    assert [sample.task for sample in samples] == ["a", "caf\\xe9", "two words"]
    assert not any(sample.problem for sample in samples)
    assert os.fsencode(samples[1].video).endswith(b"video/caf\xe9/clip.mp4")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "flowjax" / "questions"


def questions(folder):
    samples = read_benchmark(folder)
    assert not any(sample.problem for sample in samples)
    return [sample.question.stem for sample in samples]


@pytest.mark.parametrize("kind", ["read-only home", "no home", "a file", "full disk"])
def test_without_a_cache_questions_are_read_all_the_same(benchmark, cache, monkeypatch, kind):
    folder = benchmark(a=[GOOD])
    if kind == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", lambda: exec("raise RuntimeError('no home')"))
    elif kind == "read-only home":
        monkeypatch.setattr(os, "access", lambda *_: False)
    elif kind == "a file":
        cache.parent.parent.write_text("")
    else:
        full = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: raise_(full))
    assert questions(folder) == ["What moves?"]
    assert not cache.exists() or not any(cache.iterdir())


def raise_(error):
    raise error


def test_a_damaged_cache_is_repaired(benchmark, cache):
    folder = benchmark(a=[GOOD, GOOD])
    assert questions(folder) == ["What moves?"] * 2
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert any("array_record" in path.name for path in files)
    for path in files:
        whole = path.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], bytes(byte ^ 0x5A for byte in whole)):
            path.write_bytes(damaged)
            assert questions(folder) == ["What moves?"] * 2
            assert path.read_bytes() == whole or "array_record" not in path.name
        assert [entry.name[0] != "." for entry in cache.iterdir()] == [True]


def test_readers_at_once_on_a_fresh_cache(benchmark, cache):
    """Each finds none, makes its own, and one of them stays."""
    folder = benchmark(a=[GOOD | {"question": f"Number {index}?"} for index in range(20)])
    code = (
        "import sys; from pathlib import Path; from flowjax.data.benchmark import read_benchmark\n"
    )
    code += "sys.stdin.read(); print(len(read_benchmark(Path(sys.argv[1]))))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )
        for _ in range(4)
    ]  # fmt: skip
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.close()
        reader.stdin = None
    for reader in readers:
        out, err = reader.communicate()
        assert (out, err, reader.returncode) == ("20\n", "", 0)
    assert len(list(cache.iterdir())) == 1
