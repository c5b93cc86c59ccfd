"""`--prompt FILE`: what a run is asked by is in its manifest."""

from tests.experiments.checks import assert_refused, rows_of, settings_of

MINE = "Watch.\n{video} Tell me.\nQ: {question}\n{options}\nOne letter, please: ("


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_run(flowjax, model, clip, tmp_path):
    """Recorded in its manifest; with another prompt it does not go on, and says why."""
    command = ["evaluate", model, "--video", clip, "--question", "What moves?"]
    command += ["--option", "the red square", "--option", "nothing", "--answer", "A"]
    run = tmp_path / "run"
    prompt = write(tmp_path / "my prompt.txt", MINE)
    result = flowjax(*command, "--prompt", prompt, "--out", run)
    assert result.code == 0, result.err
    text = "Watch.\n<image> Tell me.\nQ: What moves?\n(A) the red square\n(B) nothing\nOne letter,"
    (row,) = rows_of(run)
    assert text in row["prompt"]
    recorded = settings_of(run)["prompt"]
    assert recorded["template"] == MINE and len(recorded["sha256"]) == 64
    assert flowjax(*command, "--prompt", prompt, "--out", run).code == 0
    write(prompt, MINE.replace("please", "now"))
    for other in ([], ["--prompt", "reference"], ["--prompt", prompt]):
        assert_refused(flowjax(*command, *other, "--out", run), "other settings (prompt is ")
    assert_refused(flowjax(*command, "--prompt", tmp_path / "none", "--out", run), "give a file")
    assert settings_of(run)["prompt"] == recorded
