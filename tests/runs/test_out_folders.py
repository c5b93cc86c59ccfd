"""OUT as people give it: a link, the current folder, an empty folder, a path with no room."""

from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from flowjax.errors import FlowjaxError
from flowjax.runs.store import RunStore

SCHEMA = pa.schema([("window", pa.int64())])


def run(path, window=3, **options):
    with closing(RunStore(path, {"window": window}, 1, schema=SCHEMA, **options)) as store:
        store.write(0, pa.table({"window": [window]}, SCHEMA), "")
        return store.finish()[0]["window"].to_pylist()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_is_taken(tmp_path, overwrite):
    assert run(tmp_path, overwrite=overwrite) == [3]


@pytest.mark.parametrize("where", ["disk", "missing"])
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path, where):
    if where == "disk":
        (tmp_path / "disk").mkdir()
    link = tmp_path / "run"
    link.symlink_to(tmp_path / where)
    assert run(link) == [3]
    assert run(link, 9, overwrite=True) == [9]
    assert link.is_symlink() and (tmp_path / where / "results.parquet").exists()
    with pytest.raises(FlowjaxError, match="run holds a run with other settings"):
        run(link)


def test_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(Path(".")) == [3]
    assert run(Path("."), 9, overwrite=True) == [9]
    assert (Path(".") / "results.parquet").exists()


def test_a_name_too_long_is_one_line(tmp_path):
    with pytest.raises(FlowjaxError, match="cannot be written: File name too long"):
        run(tmp_path / ("x" * 300))


def test_a_run_killed_before_its_manifest_is_begun_anew(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".manifest.json.k1ll3d").write_text("{")
    assert run(tmp_path) == [3]
