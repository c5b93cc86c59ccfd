"""The same command after its inputs changed: nothing of old ones is passed off as new."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from flowjax.models.checkpoint import checkpoint_digest, read_manifest
from flowjax_convert.run import convert
from tests.convert.checkpoints import edit_json

QUESTION = {
    "question": "What moves?",
    "candidates": ["the red square", "nothing"],
    "answer": "nothing",
}


@pytest.fixture
def benchmark(clip, tmp_path, monkeypatch):
    """Three questions, each about a video of its own; the second one's is missing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "benchmark"
    (folder / "json").mkdir(parents=True)
    (folder / "video" / "task").mkdir(parents=True)
    entries = [QUESTION | {"video": f"{index}.mp4"} for index in range(3)]
    (folder / "json" / "task.json").write_text(json.dumps(entries))
    for index in (0, 2):
        shutil.copy(clip, folder / "video" / "task" / f"{index}.mp4")
    return folder


def test_frames_are_recorded_and_not_mixed(flowjax, model, benchmark, tmp_path):
    command = ["evaluate", model, "--data", benchmark, "--limit", 1, "--out", tmp_path / "run"]
    first = flowjax(*command, "--fps", 2.5)
    assert first.code == 0, first.err
    rows = pq.read_table(tmp_path / "run" / "results.parquet").to_pylist()
    assert [(row["num_frames"], row["video_tokens"]) for row in rows] == [(5, 20)]
    settings = json.loads((tmp_path / "run" / "manifest.json").read_text())["settings"]
    assert settings["fps"] == 2.5 and not {"num_frames", "max_pixels"} & settings.keys()
    assert flowjax(*command, "--fps", 2.5).code == 0
    other = flowjax(*command, "--frames", 5)
    assert other.code == 2
    assert "fps is 2.5 there and null here; num_frames is null there and 5 here" in other.err


def test_videos_supplied_later_are_read_and_finished_samples_stay(
    flowjax, model, clip, benchmark, tmp_path, caplog
):
    command = ["evaluate", model, "--data", benchmark, "--out", tmp_path / "run"]
    first = flowjax(*command)
    assert first.code == 0, first.err
    assert "1 samples could not be read" in first.out and "1.mp4" in first.out
    parts = tmp_path / "run" / "parts"
    before = {part.name: part.stat().st_mtime_ns for part in parts.iterdir()}

    shutil.copy(clip, benchmark / "video" / "task" / "1.mp4")
    second = flowjax(*command)
    assert second.code == 0, second.err
    assert "could not be read" not in second.out
    assert not (tmp_path / "run" / "failures.parquet").exists()
    ids = pq.read_table(tmp_path / "run" / "results.parquet")["sample_id"].to_pylist()
    assert ids == ["task/0", "task/1", "task/2"]
    assert (
        before.items() <= {part.name: part.stat().st_mtime_ns for part in parts.iterdir()}.items()
    )

    # A byte far behind the first MiB would do as well: the whole file counts.
    with (benchmark / "video" / "task" / "2.mp4").open("ab") as file:
        file.write(b"\0")
    third = flowjax(*command)
    assert third.code == 2
    assert "sample task/2, whose question or video has changed" in third.err


@pytest.mark.parametrize("digest", ["kept", "none, as before"])
def test_results_of_a_model_are_not_those_of_one_converted_in_its_place(
    flowjax, asked, checkpoint, tmp_path, digest
):
    """The other model differs in the last parameter of its largest file."""
    model, source, out = (tmp_path / name for name in ("model", "source", "run"))
    shutil.copytree(checkpoint, source)

    def converted():
        convert(source, model, overwrite=True)
        assert len(read_manifest(model).digest) == 64
        if digest != "kept":
            edit_json(model / "flowjax.json", lambda fields: fields.pop("digest"))
        return checkpoint_digest(model)

    first = converted()
    assert converted() == first
    command = ["evaluate", model, *asked[2:], "--out", out]
    assert flowjax(*command).code == 0
    with (source / "model.safetensors").open("rb+") as file:
        file.seek(-2, 2)
        byte = file.read(1)
        file.seek(-2, 2)
        file.write(bytes([byte[0] ^ 1]))
    assert converted() != first
    again = flowjax(*command)
    assert again.code == 2
    assert "run holds a run with other settings (checkpoint is" in again.err
