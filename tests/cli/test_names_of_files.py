"""Any name that the system opens is a good one, and text that is none is named."""

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.test_convert_and_sweep import assert_refused, replaced


def latin(folder, name):
    """A path with an e acute as Latin-1 has it, which is not UTF-8."""
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name.encode("latin-1")))


def test_names_that_are_not_utf8(flowjax, asked, checkpoint, clip, tmp_path):
    try:
        source = shutil.copytree(checkpoint, latin(tmp_path, "mod\u00e8le"))
    except OSError as error:
        pytest.skip(f"this file system takes UTF-8 names only: {error}")
    model, video, run = (
        latin(tmp_path, f"\u00e9t\u00e9{ending}") for ending in ("", ".mp4", ".run")
    )
    shutil.copy(clip, video)
    for arguments in ([source, model], ["--verify", model, source]):
        done = flowjax("convert", *arguments)
        assert done.code == 0, done.err
    sweep = [*replaced(asked, "--video", video), "--window", 3, "--edges", "cross-frame"]
    sweep[1] = model
    done = flowjax(*sweep, "--out", run)
    assert done.code == 0, done.err
    with (run / "results.parquet").open("rb") as file:
        assert pq.read_table(file)["sample_id"].unique().to_pylist() == ["\\xe9t\\xe9.mp4"]
    assert flowjax("figures", run).code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--question", "caf\udce9"), "the question is no text: character 3 is U+DCE9"),
        (("--option", "blue", "caf\udce9"), "option (B) is no text: character 3 is U+DCE9"),
    ],
)
def test_text_that_is_none(flowjax, asked, change, words):
    assert_refused(flowjax(*replaced(asked, *change), "--out", "run", "--window", 3), words)


def test_a_video_that_is_a_pointer_of_git_lfs(flowjax, asked, tmp_path):
    (tmp_path / "clip.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    command = [*replaced(asked, "--video", tmp_path / "clip.mp4"), "--out", tmp_path / "run"]
    result = flowjax(*command, "--window", 3)
    assert_refused(result, "clip.mp4 only points to a file that Git LFS has not fetched")
