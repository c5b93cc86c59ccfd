"""Manifests, entries and headers of any content are read, or refused in one line."""

import copy
import json
import shutil
from contextlib import closing

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowjax.data.benchmark import read_benchmark
from flowjax.data.benchmarks.tvbench import entry as entry_of
from flowjax.data.question_cache import kept
from flowjax.data.samples import Row
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import MANIFEST, read_manifest
from flowjax.runs.finished import read_settings
from flowjax.runs.store import RunStore
from flowjax_convert.safetensors_file import read_headers

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)
"""JSON values; texts may hold lone surrogates."""
WORDS = st.text(st.characters(), max_size=6)
MODEL = {
    "format": 1, "family": "pllava", "name": "n", "source": "s", "note": "", "digest": "",
    "flowjax_version": "0.1.0", "overrides": {}, "parameters": 3, "dtype": {"a": "float32"},
}  # fmt: skip
FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def one_line(function, *arguments):
    """What it gives, or None for an error in one line; any other exception is a failure."""
    try:
        return function(*arguments)
    except FlowjaxError as error:
        assert str(error) and "\n" not in str(error)
        return None


def changed(value, path, new):
    """A copy of a JSON value with one place in it changed; None removes it."""
    out = copy.deepcopy(value)
    place = out
    for key in path[:-1]:
        place = place[key]
    if new is None:
        del place[path[-1]]
    else:
        place[path[-1]] = new[0]
    return out


@FOLDER
@given(
    entry=st.fixed_dictionaries(
        {},
        optional={
            "question": WORDS | ANY,
            "candidates": st.lists(WORDS | st.integers(), max_size=5) | ANY,
            "answer": WORDS | st.integers() | ANY,
            "video": WORDS | ANY,
            "start": st.floats() | st.integers() | ANY,
            "end": ANY,
        },
    )
)
def test_entries_of_a_benchmark(tmp_path, entry):
    good = {"question": "Why?", "candidates": ["a", "b"], "answer": "b", "video": "v.mp4"}
    file = tmp_path / "json" / "task.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps([entry, good]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowjax.data.question_cache.cache_folder", lambda _: None)
        first, second = read_benchmark(tmp_path)
    assert second.question.answer == "B" and not second.problem
    if first.problem:
        assert "task.json: entry 0: " in first.problem and "\n" not in first.problem
        first.problem.encode()
    elif not first.question.options:
        assert first.reference == str(entry["answer"]) and not entry.get("candidates")
    else:
        answer = first.question.options[first.question.letters.index(first.question.answer)]
        assert answer == str(entry["answer"]) and first.question.stem == str(entry["question"])


@settings(max_examples=8)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "question": st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
                "candidates": st.just(["\0", "b\n"]),
                "answer": st.just("\0"),
                "video": st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
                "start": st.floats(0, 1e9),
            }
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_cache_gives_back_what_it_was_given(tmp_path_factory, entries):
    made = [one_line(entry_of, "task", "task", entry) for entry in entries]
    rows = [Row(f"task/{i}", entry) for i, entry in enumerate(made) if entry is not None]
    rows.append(Row("task/bad", None, "entry 9: \0 no question"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for make in (lambda: rows, lambda: pytest.fail("made twice")):
            found = kept("0" * 64, make)
            assert found.ids == [row.sample_id for row in rows]
            assert repr([found[i] for i in range(len(rows))]) == repr(rows)


@FOLDER
@given(data=st.data())
def test_manifests_of_models(tmp_path, data):
    name = data.draw(st.sampled_from(sorted(MODEL)))
    new = data.draw(st.none() | st.tuples(ANY))
    (tmp_path / MANIFEST).write_text(json.dumps(changed(MODEL, [name], new)))
    found = one_line(read_manifest, tmp_path)
    assert found is None or isinstance(found.name, str)


@FOLDER
@given(data=st.data())
def test_manifests_of_runs(tmp_path, data):
    """Another run, no run, or the same: never one that is half read."""
    schema = pa.schema([("value", pa.int64())])
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    with closing(RunStore(run, {"window": 3}, 1, schema=schema)) as store:
        store.write(0, schema.empty_table(), "")
    fields = json.loads((run / "manifest.json").read_text())
    path = data.draw(
        st.sampled_from([["digest"], ["settings"], ["settings", "window"], ["format"]])
    )
    new = data.draw(st.none() | st.tuples(ANY))
    (run / "manifest.json").write_text(json.dumps(changed(fields, path, new)))
    one_line(read_settings, run)

    def opened():
        with closing(RunStore(run, {"window": 3}, 1, schema=schema)) as store:
            return store.finished

    assert one_line(opened) in (None, {0: ""})


HEADER = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "BF16", "shape": [1, 1], "data_offsets": [8, 10]},
}
PLACES = [["a"], ["a", "dtype"], ["a", "shape"], ["a", "shape", 0], ["b", "data_offsets"],
          ["b", "data_offsets", 0], ["b", "data_offsets", 1]]  # fmt: skip


@FOLDER
@given(
    place=st.sampled_from(PLACES),
    new=st.none() | st.tuples(ANY | st.integers(-1, 2**70)),
    cut=st.integers(0, 30),
    more=st.binary(max_size=3),
)
def test_headers_of_safetensors(tmp_path, place, new, cut, more):
    text = json.dumps(changed(HEADER, place, new)).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(10) + more
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[: len(content) - cut])
    headers = one_line(read_headers, path)
    if headers:
        ends = sorted((header.start, header.stop) for header in headers.values())
        assert ends[-1][1] == path.stat().st_size
        assert all(start <= stop for start, stop in ends)


@FOLDER
@given(st.binary(max_size=99))
def test_any_bytes(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    one_line(read_manifest, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    one_line(read_headers, tmp_path / "model.safetensors")
