"""`flowjax evaluate` on open questions: exact match, F1, and the scores of a judge."""

import json
import math
import shutil

import pyarrow.parquet as pq
import pytest

import flowjax as fj
from flowjax.report.open_answers import exact_match, read_scores, token_f1


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        ("The red cube.", "red cube", True, 1.0),
        ("A dog runs, then sits", "the dog sits", False, 2 * 2 / (4 + 2)),
        ("dog dog dog", "dog", False, 2 * 1 / 4),
        ("", "dog", False, 0.0),
        ("The.", "a", True, 1.0),
        ("grün", "Grün!", True, 1.0),
    ],
)
def test_words(answer, reference, exact, f1):
    assert exact_match(answer, reference) is exact
    assert token_f1(answer, reference) == pytest.approx(f1)


@pytest.fixture(scope="module")
def data(benchmark, tmp_path_factory):
    """Two open questions, one of them with <script> in it, and one with options."""
    folder = tmp_path_factory.mktemp("open")
    shutil.copy(benchmark / "video" / "direction" / "0.mp4", folder / "a.mp4")
    rows = [
        {"video": "a.mp4", "question": "What moves?", "answer": "B A.", "task": "open"},
        {"video": "a.mp4", "question": "<script>{{7*7}}", "answer": "nothing", "task": "open"},
        {"video": "a.mp4", "question": "Which?", "options": ["up", "down"], "answer": "A"},
        {"video": "a.mp4", "question": "Nobody knows?"},
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_open_answers_and_a_judge(flowjax, answering, data, tmp_path):
    command = ["evaluate", answering, "--data", data, "--max-new-tokens", 3]
    command += ["--out", tmp_path / "run"]
    first = flowjax(*command)
    assert first.code == 0, first.err
    assert "Open answers" in first.out and "Accuracy" in first.out
    assert "1 samples could not be read" in first.out  # its true answer is not known
    rows = pq.read_table(tmp_path / "run" / "results.parquet").to_pylist()
    assert [row["options"] for row in rows] == [0, 0, 2]
    assert math.isnan(rows[2]["f1"]) and math.isnan(rows[0]["probability_true"])
    model = fj.load(answering)
    asked = fj.ask(model, data / "a.mp4", "What moves?")
    assert rows[0]["answer"] == fj.generate(asked, max_new_tokens=3).text.strip()
    assert rows[0]["f1"] == token_f1(rows[0]["answer"], "B A.")
    lines = (tmp_path / "run" / "answers.jsonl").read_text().splitlines()
    written = [json.loads(line) for line in lines]
    assert [line["question"] for line in written] == ["What moves?", "<script>{{7*7}}"]
    assert [line["answer"] for line in written] == [row["answer"] for row in rows[:2]]

    scores = tmp_path / "scores.jsonl"
    judged = [line | {"score": 3 + index} for index, line in enumerate(written)]
    scores.write_text("".join(json.dumps(line) + "\n" for line in judged))
    second = flowjax(*command, "--scores", scores)
    assert second.code == 0, second.err
    assert "score" in second.out and "3.500" in second.out
    again = flowjax("figures", tmp_path / "run")
    assert again.code == 0 and "3.500" in again.out
    scores.write_text(json.dumps(judged[0]) + "\n")
    lacking = flowjax(*command, "--scores", scores)
    assert lacking.code == 2 and "sample 'questions/1' has no score" in lacking.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not readable as JSON"),
        ("[]", "line 2: must be an object with sample_id"),
        ('{"sample_id": "b", "score": NaN}', "line 2: score must be a number"),
        ('{"sample_id": "b", "score": "good"}', "line 2: score must be a number"),
        ('{"sample_id": "a", "score": 1}', "'a' has a score already"),
    ],
)
def test_bad_scores_are_named(tmp_path, line, words):
    path = tmp_path / "scores.jsonl"
    path.write_text('{"sample_id": "a", "score": 1}\n' + line)
    with pytest.raises(fj.FlowjaxError, match=words):
        read_scores(path)
