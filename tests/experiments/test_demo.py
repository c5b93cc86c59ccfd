"""The demo, and through it the shipped pair."""

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flowjax.data.shapes.tasks import VIDEO_TASKS
from flowjax_experiments.demo import MODELS
from flowjax_experiments.shapes import PAIR

LEARNED = ("moving_direction", "action_sequence", "action_antonym", "scene_transition")
PER_TASK = 3


@pytest.fixture(scope="module")
def demo(flowjax, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    return out, flowjax("demo", "--out", out, "--per-task", PER_TASK)


def rows(folder):
    return pq.read_table(folder / "results.parquet")


def test_it_prints_and_draws(demo):
    out, result = demo
    assert result.code == 0, result.err
    for task in VIDEO_TASKS:
        assert task in result.out
    assert "video->question" in result.out or "question->last" in result.out
    with Image.open(out / "pair.png") as image:
        assert image.width > 1000
    page = out / "report.html"
    assert result.out.splitlines()[-1] == f"report   {page}"
    assert page.stat().st_size < 5e6
    text = page.read_text()
    for section in ("flow", "sample", "curves", "evaluate-1", "made"):
        assert f'<section id="{section}"' in text
    assert 'class="widget" data-kind="sample"' in text


def test_the_video_model_knows_what_the_image_model_does_not(demo):
    """Of two options each."""
    out, _ = demo
    right = {}
    for name in MODELS:
        table = rows(out / name / "answers").filter(pc.field("task").isin(LEARNED))
        assert table.num_rows == len(LEARNED) * PER_TASK
        right[name] = sum(table["correct"].to_pylist())
    assert right["video"] >= 0.8 * len(LEARNED) * PER_TASK
    assert right["image"] <= 0.75 * len(LEARNED) * PER_TASK


def test_both_were_swept_over_their_right_answers(demo):
    out, _ = demo
    for name in MODELS:
        answers, swept = rows(out / name / "answers"), rows(out / name / "sweep")
        right = answers.filter(pc.field("correct"))["sample_id"].to_pylist()
        assert sorted(set(swept["sample_id"].to_pylist())) == sorted(right)
        assert swept.num_rows == len(right) * 11 * 8


def test_the_edges_cut_matter(demo):
    """Some window takes most of the probability from some right answer."""
    table = rows(demo[0] / "video" / "sweep")
    assert min(table["relative_change"].to_pylist()) < -50
    assert set(table["width"].to_pylist()) == {3}


def test_another_folder_is_not_overwritten(demo, flowjax, tmp_path):
    out, _ = demo
    assert flowjax("demo", "--out", out).code == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    result = flowjax("demo", "--out", tmp_path / "mine", "--overwrite")
    assert result.code == 2 and "remove it or give another --out" in result.err
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_the_pair_is_small():
    files = [path for path in PAIR.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15_000_000
    assert {path.parent.name for path in files if path.suffix == ".safetensors"} == set(MODELS)


def test_five_sentences_say_what_the_rows_have(demo):
    out, result = demo
    said = result.out.split("What was found:\n")[1].split("\n\n")[0].splitlines()
    assert len(said) == 5 and all(line.startswith("- ") for line in said)
    right = sum(rows(out / "video" / "answers")["correct"].to_pylist())
    assert (
        f"The video model answers {right} of {PER_TASK * len(VIDEO_TASKS)} questions rightly"
        in said[0]
    )
    swept = rows(out / "video" / "sweep")
    assert f"n = {len(set(swept['sample_id'].to_pylist()))}, adjusted" in said[3]
