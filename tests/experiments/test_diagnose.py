import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flowjax.asked.asked import ask_sample
from flowjax.data.benchmark import read_benchmark
from flowjax.edges import Edge, Knockout
from flowjax.models.checkpoint import load_model
from flowjax.report.canvas import save_figure
from flowjax.report.statistics import difference_interval, proportion_interval
from flowjax.sweeps.reference import full_forwards
from flowjax.token_text import answer_text
from flowjax_experiments.diagnose import Diagnose, Diagnosed, draw_diagnosis, shares
from tests.experiments.checks import assert_redrawn


@pytest.fixture(scope="module")
def run(flowjax, answering, benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("diagnose") / "run"
    result = flowjax("diagnose", answering, "--data", benchmark, "--out", out, "--window", 3)
    assert result.code == 0, result.err
    return out, result.out


def test_answers_are_those_of_the_sweep(run, swept, answering, benchmark):
    rows = pq.read_table(run[0] / "results.parquet")
    assert rows.schema.equals(Diagnose.SCHEMA)
    sweep = pq.read_table(swept / "results.parquet").filter(pc.field("edge") == "cross_frame")
    for row in rows.to_pylist():
        windows = sweep.filter(pc.field("sample_id") == row["sample_id"]).sort_by("centre")
        assert row["window_answers"] == windows["new_answer"].to_pylist()
        assert row["base_answer"] == windows["base_answer"][0].as_py()
    assert rows["base_answer"] != rows["cut_answer"], "cutting every edge changes no answer"


def test_cut_and_still_answers_are_those_of_full_forwards(run, answering, benchmark):
    rows = {row["sample_id"]: row for row in pq.read_table(run[0] / "results.parquet").to_pylist()}
    loaded = load_model(answering)
    decoder = loaded.model.decoder
    every = Knockout((Edge.parse("cross_frame"),), tuple(range(decoder.config.layers)))
    for sample in read_benchmark(benchmark, limit=2):
        as_is = ask_sample(loaded, sample)
        still = ask_sample(loaded, sample, order="repeated")
        logits = full_forwards(decoder, as_is.embedded, as_is.prompt.layout, [every]).collect(1)
        base = full_forwards(decoder, still.embedded, still.prompt.layout, []).base
        said = [answer_text(loaded.tokenizer, int(np.argmax(x))) for x in (logits[0], base)]
        row = rows[sample.sample_id]
        assert said == [row["cut_answer"], row["still_answer"]]


def test_redrawn_from_rows(run, flowjax):
    out, printed = run
    assert "Case 1: flips" in printed and "Case 2: static" in printed
    assert_redrawn(flowjax, out, printed)


def test_wrong_answers_are_shown_with_their_frames(run, flowjax, tmp_path):
    page = tmp_path / "r.html"
    assert flowjax("report", run[0], "--out", page).code == 0
    text = page.read_text()
    wrong = [row for row in pq.read_table(run[0] / "results.parquet").to_pylist()
             if not row["correct"]]  # fmt: skip
    assert wrong
    for row in wrong:
        assert f"{row['sample_id']}: answers {row['base_answer']}, right is" in text
        assert f'alt="8 frames of {row["sample_id"]}"' in text
    assert text.count("data:image/jpeg;base64,") == len(wrong)
    assert '<section id="sample"' not in text, "nothing else is known of these samples"


def test_a_window_wider_than_the_model_is_named(flowjax, answering, benchmark, tmp_path):
    arguments = ["--data", benchmark, "--out", tmp_path / "run", "--window", 99]
    result = flowjax("diagnose", answering, *arguments)
    assert result.code == 2
    assert "window width 99" in result.err
    assert not (tmp_path / "run").exists()


def rows_of(*answers):
    """Rows of base, true, windows, cut and still answers."""
    rows = []
    for index, (base, true, windows, cut, still) in enumerate(answers):
        row = dict.fromkeys(Diagnose.SCHEMA.names, "")
        row |= dict.fromkeys(("num_frames", "video_tokens"), 8)
        row |= dict.fromkeys(("base_id", "cut_id"), 7) | {"window_ids": [7]}
        row |= {"sample_id": str(index), "base_answer": base, "true_answer": true, "width": 3}
        row |= {"window_answers": list(windows), "cut_answer": cut, "still_answer": still}
        rows.append(row | {"correct": base == true, "model": "m"})
    return pa.Table.from_pylist(rows, Diagnose.SCHEMA)


TABLE = rows_of(
    ("B", "A", "BAB", "C", "B"),  # case 1: the second window makes it right
    ("B", "A", "BBB", "B", "B"),  # case 2: static
    ("B", "A", "ABB", "B", "B"),  # both
    ("B", "A", "BCB", "B", "C"),  # neither, but a window changes it
    ("A", "A", "AAA", "A", "A"),  # right, static
    ("A", "A", "ABA", "B", "A"),  # right, made wrong
)


def test_cases_by_hand(tmp_path):
    found = {share.case: share for share in shares(Diagnosed.of(TABLE))}
    hits = {case: (share.hits["wrong"], share.hits["right"]) for case, share in found.items()}
    assert hits == {
        "case 1": (2, 1),
        "case 2": (2, 1),
        "both": (1, 0),
        "neither": (1, 0),
        "changed": (3, 1),
    }
    assert found["case 1"].share["wrong"] == proportion_interval(2, 4)
    assert found["case 1"].difference is not None
    assert found["case 1"].difference.mean == 0
    path = save_figure(draw_diagnosis(TABLE), tmp_path / "diagnosis.png")
    assert path.stat().st_size > 10_000


def test_without_right_answers_there_is_no_difference():
    found = shares(Diagnosed.of(TABLE.slice(0, 4)))
    assert all(share.share["right"] is None and share.difference is None for share in found)
    (bars, _) = draw_diagnosis(TABLE.slice(0, 4)).axes
    assert len(bars.containers) == 2  # the bars of wrong answers, and their intervals


def test_difference_of_shares_as_newcombe_gives_it():
    """The paper's worked example: 56/70 - 48/80, method 10."""
    gap = difference_interval(proportion_interval(56, 70), proportion_interval(48, 80))
    assert gap.mean == pytest.approx(0.2)
    assert gap.low == pytest.approx(0.0524, abs=5e-5)
    assert gap.high == pytest.approx(0.3339, abs=5e-5)
