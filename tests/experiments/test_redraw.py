"""`flowjax figures` on any run, by what its manifest says."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowjax.runs.run import EARLIER, LATER
from flowjax.runs.store import FAILURES
from tests.experiments.checks import assert_refused


def write_manifest(folder, settings):
    (folder / "manifest.json").write_text(json.dumps({"settings": settings}))


@pytest.mark.parametrize("key", ["analysis", "experiment"])
@pytest.mark.parametrize("name", ["demo", "nothing", "os", "../convert", 3, None, ["lens"]])
def test_an_analysis_that_is_none_is_refused(flowjax, tmp_path, key, name):
    """A manifest names an analysis of ours, or nothing is imported."""
    write_manifest(tmp_path, {key: name})
    assert_refused(flowjax("figures", tmp_path), "manifest.json", "analysis")


@pytest.mark.parametrize("text", ["{}", '{"settings": []}', "[]", "no json", None])
def test_a_folder_that_is_no_run_is_refused(flowjax, tmp_path, text):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    assert_refused(flowjax("figures", tmp_path), "manifest.json")


def test_an_unfinished_run_is_refused(flowjax, tmp_path):
    for settings in ({}, {"experiment": "lens"}, {"experiment": "pathways"}, {"analysis": "exit"}):
        write_manifest(tmp_path, settings)
        assert_refused(flowjax("figures", tmp_path), "results.parquet is missing")


def earlier(run, out, name):
    """The run as flowjax wrote it when manifests named experiments, and none for a sweep.

    Its rows lack the columns that have come since.
    """
    shutil.copytree(run, out)
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["settings"]["analysis"]
    manifest["settings"] |= {} if name is None else {"experiment": name}
    (out / "manifest.json").write_text(json.dumps(manifest))
    rows = pq.read_table(run / "results.parquet")
    rows = rows.drop_columns([name for name in rows.column_names if name in LATER])
    pq.write_table(rows, out / "results.parquet")


def test_an_earlier_sweep_is_read(flowjax, swept, tmp_path):
    earlier(swept, tmp_path / "run", None)
    again, now = flowjax("figures", tmp_path / "run"), flowjax("figures", swept)
    assert again.code == now.code == 0, again.err
    assert again.out.replace(str(tmp_path / "run"), str(swept)) == now.out


@pytest.mark.parametrize("name", EARLIER)
def test_earlier_names_are_known(flowjax, swept, tmp_path, name):
    """Rows that are not those of the analysis are refused by the columns that differ."""
    earlier(swept, tmp_path / "run", name)
    result = flowjax("figures", tmp_path / "run")
    if EARLIER[name] == "sweep":
        assert result.code == 0, result.err
    else:
        words = (f"flowjax {EARLIER[name]}", "another version of flowjax", "run it again")
        assert_refused(result, "results.parquet", *words)


def test_records_of_the_reference_are_written(flowjax, swept, tmp_path):
    shutil.copytree(swept, tmp_path / "run")
    result = flowjax("figures", tmp_path / "run", "--format", "reference")
    assert result.code == 0, result.err
    files = sorted((tmp_path / "run" / "reference").rglob("*.json"))
    assert sorted(result.out.splitlines()) == [f"records  {path}" for path in files]
    rows = pq.read_table(swept / "results.parquet")
    assert sum(len(json.loads(path.read_text())) for path in files) == rows.num_rows
    for form in ("csv", "png,csv", "reference,png", ""):
        assert_refused(flowjax("figures", swept, "--format", form), f"--format {form!r}")


def test_figures_of_a_paper(flowjax, swept, tmp_path):
    shutil.copytree(swept, tmp_path / "run")
    result = flowjax("figures", tmp_path / "run", "--format", "pdf,svg", "--style", "paper")
    assert result.code == 0, result.err
    folder = tmp_path / "run" / "figures" / "paper"
    names = {path.stem for path in (swept / "figures").iterdir()}
    found = {path.name for path in folder.iterdir()}
    assert found == {f"{n}.{form}" for n in names for form in ("pdf", "svg")} | {"captions.txt"}
    captions = (folder / "captions.txt").read_text().splitlines()
    assert {line.split(":")[0] for line in captions if line} == names
    assert_refused(flowjax("figures", swept, "--style", "poster"), "--style 'poster'")


def test_a_report_of_runs_is_one_file(flowjax, swept, tmp_path):
    out = tmp_path / "r.html"
    result = flowjax("report", swept, "--out", out)
    assert result.code == 0, result.err
    assert result.out == f"report   {out}\n"
    text = out.read_text()
    assert 'id="flow"' in text and 'id="curves"' in text
    assert text.count("://") == 1, "the name of SVG, and no address"
    write_manifest(tmp_path, {"analysis": "os"})
    assert_refused(flowjax("report", swept, tmp_path, "--out", out), "manifest.json", "analysis")
    assert_refused(flowjax("report", swept, "--out", swept / "manifest.json" / "x"), "is a file")
    assert out.read_text() == text


def test_a_report_says_how_runs_were_made(flowjax, swept, tmp_path):
    shutil.copytree(swept, tmp_path / "run")
    error = "cannot be read: <b>"
    rows = [{"sample_id": "s", "task": "t", "video": "v.mp4", "error": error}]
    pq.write_table(pa.Table.from_pylist(rows, FAILURES), tmp_path / "run" / "failures.parquet")
    assert flowjax("report", tmp_path / "run", "--out", tmp_path / "r.html").code == 0
    text = (tmp_path / "r.html").read_text()
    made = text[text.index('id="made"') :]
    for words in ("flowjax sweep ", "planned, ", "times less", "jax 0", "cores", "1 could not be"):
        assert words in made
    assert "cannot be read: &lt;b&gt;" in made
    (tmp_path / "run" / "made.json").write_text('[{"flops": [], "hardware": 3}]')
    assert flowjax("report", tmp_path / "run", "--out", tmp_path / "r.html").code == 0
