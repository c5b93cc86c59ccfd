"""Prepared benchmarks: the frames that decoding gives, bit for bit, however they were made."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flowjax.data.benchmark import read_benchmark
from flowjax.data.clip import read_clip, sample_digest
from flowjax.data.encode import write_mp4
from flowjax.data.frame_rate import AtRate, ByRate
from flowjax.data.prepare import Plan, prepare
from flowjax.data.prepared import FAILURES, FRAMES, MANIFEST, PER_SHARD, QUESTIONS
from flowjax.data.question_cache import open_questions
from flowjax.errors import FlowjaxError
from tests.videos import moving_square

OPTIONS = ["red", "green"]
UNREADABLE = ["3 é.mp4", "damaged.mp4", "gone.mp4"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Forty clips, two of each video and one in a part that is not there; one of them shared.

    And a video that is missing, one that is damaged, and an entry that is not well formed.
    """
    folder = tmp_path_factory.mktemp("prepare") / "my questions"
    folder.mkdir()
    rows = []
    for index in range(20):
        write_mp4(folder / f"{index} é.mp4", moving_square(1 if index == 3 else 20, 32), 10)
        row = {"video": f"{index} é.mp4", "question": "What?", "options": OPTIONS, "answer": "A"}
        rows += [row | {"task": f"t{index % 2}"}, row | {"start": 0.5, "end": 1.0}]
    rows += [rows[0] | {"question": "What else?"}, rows[0] | {"video": "gone.mp4"}]
    rows += [rows[0] | {"video": "damaged.mp4"}, rows[0] | {"video": "../out.mp4"}]
    (folder / "damaged.mp4").write_bytes((folder / "0 é.mp4").read_bytes()[:300])
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def made(benchmark, out, *, frames: int | AtRate = 4, **options):
    plan = Plan.of(read_benchmark(benchmark))
    return plan, prepare(plan, benchmark, out, frames=frames, **options)


def content(out):
    files = (file for file in out.rglob("*.array_record") if file.parent.name == "frames")
    return {file.name: file.read_bytes() for file in files}


PREPARE = """
import sys
from pathlib import Path
from flowjax.data.benchmark import read_benchmark
from flowjax.data.prepare import Plan, prepare
source, out, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
plan = Plan.of(read_benchmark(source))
print("begins", flush=True)
prepare(plan, source, out, frames=4, workers=workers)
print("ends", flush=True)
"""


def preparing(benchmark, out, workers):
    """A process that prepares, and has begun to."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PREPARE, str(benchmark), str(out), str(workers)]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "begins\n"
    return child


def everything(out):
    """Every file's bytes, but of questions what they say: the library writes maps in any order."""
    kept = open_questions(out / QUESTIONS)
    assert kept is not None
    files = [file for folder in (FRAMES, FAILURES) for file in (out / folder).iterdir()]
    content = {str(file.relative_to(out)): file.read_bytes() for file in [out / MANIFEST, *files]}
    return content, [repr(kept[index]) for index in range(len(kept.ids))]


def frames_of(sample, count):
    try:
        clip = read_clip(sample, count)
    except FlowjaxError as error:
        return str(error)
    arrays = (clip.frames, clip.indices, clip.timestamps)
    return [(array.dtype, array.tolist()) for array in arrays], clip.fps, clip.duration


def test_frames_are_those_of_the_videos(benchmark, tmp_path):
    plan, failed = made(benchmark, tmp_path / "out")
    assert len(plan.rows) == 44 and len(plan.clips) == 42  # one shared, one that is no entry
    assert sorted(plan.clips[clip].video.name for clip in failed) == UNREADABLE
    assert any("start (0.5 s) is after the last frame" in why for why in failed.values())
    raw, stored = read_benchmark(benchmark), read_benchmark(tmp_path / "out")
    assert stored.ids == raw.ids and stored.tasks == raw.tasks
    for one, other in zip(raw, stored, strict=True):
        assert (one.sample_id, one.task, one.video, one.question, one.problem) == (
            other.sample_id, other.task, other.video, other.question, other.problem
        )  # fmt: skip
        assert (one.start, one.end, one.rate) == (other.start, other.end, other.rate)
        if not one.problem:
            assert frames_of(one, 4) == frames_of(other, 4)
            readable = one.video.name not in UNREADABLE
            assert sample_digest(one) == sample_digest(other) or not readable
    assert [one.sample_id for one in read_benchmark(tmp_path / "out", ["t1"], limit=2)] == [
        one.sample_id for one in read_benchmark(benchmark, ["t1"], limit=2)
    ]


def test_other_frames_are_refused(benchmark, tmp_path):
    made(benchmark, tmp_path / "out")
    samples = read_benchmark(tmp_path / "out")
    with pytest.raises(FlowjaxError, match="4 frames of every video, but this model reads 8; give"):
        samples.check(8)
    with pytest.raises(FlowjaxError, match="but this model chooses others; give --frames 4"):
        samples.check(lambda total, fps: np.arange(total))
    with pytest.raises(FlowjaxError, match=r"prepared otherwise \(frames is 4 there and 8"):
        made(benchmark, tmp_path / "out", frames=8)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(FlowjaxError, match="was not made by flowjax prepare"):
        made(benchmark, tmp_path / "other")


AT_RATE = AtRate(4.0, ByRate("starts", least=2, most=768, multiple=2), 4, None)


def test_frames_at_a_rate(benchmark, tmp_path):
    """As one family chooses them: more of longer videos, and of short ones some twice."""
    made(benchmark, tmp_path / "out", frames=AT_RATE)
    raw, stored = read_benchmark(benchmark), read_benchmark(tmp_path / "out")
    stored.check(AT_RATE)
    lengths = set()
    for one, other in zip(raw, stored, strict=True):
        if not one.problem:
            found = frames_of(other, AT_RATE)
            assert found == frames_of(one, AT_RATE)
            lengths |= set() if isinstance(found, str) else {len(found[0][0][1])}
    assert lengths == {4, 8}
    for other, words in (
        (
            4,
            "at 4 frames a second, chosen as one family chooses them, but this model reads 4; give",
        ),
        (replace(AT_RATE, rate=2.0), "chooses others at 2 a second; give --fps 4"),
        (replace(AT_RATE, rule=ByRate()), "chooses others at 4 a second"),
    ):
        with pytest.raises(FlowjaxError, match=words):
            stored.check(other)
    with pytest.raises(FlowjaxError, match=r"prepared otherwise \(frames is {.*} there and 4 here"):
        made(benchmark, tmp_path / "out")
    made(benchmark, tmp_path / "out", frames=AT_RATE)


def test_smaller_frames(benchmark, tmp_path):
    made(benchmark, tmp_path / "out", size=20)
    assert read_clip(read_benchmark(tmp_path / "out")[0], 4).frames.shape == (4, 20, 20, 3)


def test_more_workers_and_a_kill_give_the_same_files(benchmark, tmp_path):
    made(benchmark, tmp_path / "one")
    made(benchmark, tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(content(tmp_path / "one")) == 3
    killed = tmp_path / "killed"
    child = preparing(benchmark, killed, workers=1)
    until = time.monotonic() + 60
    while not list(killed.glob("frames/00000*")) and time.monotonic() < until:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    if len(content(killed)) < 3:
        with pytest.raises(FlowjaxError, match="is not finished"):
            read_benchmark(killed)
    plan, failed = made(benchmark, killed)
    assert sorted(plan.clips[clip].video.name for clip in failed) == UNREADABLE
    assert content(killed) == content(tmp_path / "one")
    assert not list(killed.rglob(".*.????????"))
    times = {name: (killed / "frames" / name).stat().st_mtime_ns for name in content(killed)}
    made(benchmark, killed)
    later = {name: (killed / "frames" / name).stat().st_mtime_ns for name in content(killed)}
    # Only those are written again that hold clips that could not be read.
    assert {int(name[:5]) for name in times if times[name] != later[name]} == {
        clip // PER_SHARD for clip in failed
    }


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=3, phases=[Phase.generate])
def test_killed_at_random_times(benchmark, tmp_path_factory, workers, seed):
    """Again and again until it ends: the files of a run that nothing stopped, byte for byte.

    The workers end as well, or they would hold the standard output open.
    """
    folder, rng = tmp_path_factory.mktemp("killed"), np.random.default_rng(seed)
    whole = preparing(benchmark, folder / "whole", workers)
    start = time.monotonic()
    assert whole.communicate()[0] == "ends\n" and whole.returncode == 0
    seconds = time.monotonic() - start
    kills, ended = 0, False
    while not ended:
        child = preparing(benchmark, folder / "killed", workers)
        # Ever later, so that it ends.
        time.sleep(rng.uniform(0, seconds) * (1 + kills / 4))
        child.send_signal(signal.SIGKILL)
        ended = child.communicate(timeout=120)[0] == "ends\n"
        kills += 1
    assert everything(folder / "killed") == everything(folder / "whole")


def test_what_could_not_be_read_is_tried_again(benchmark, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(benchmark, source)
    plan, failed = made(source, tmp_path / "out")
    shutil.copy(source / "0 é.mp4", source / "gone.mp4")
    _, later = made(source, tmp_path / "out")
    (gone,) = failed.keys() - later.keys()
    assert plan.clips[gone].video.name == "gone.mp4" and len(later) == 2
    samples = read_benchmark(tmp_path / "out")
    (sample,) = (one for one in samples if one.video.name == "gone.mp4")
    assert frames_of(sample, 4)[1] == 10.0


def test_damaged_files_are_named(benchmark, tmp_path):
    made(benchmark, tmp_path / "out")
    file = tmp_path / "out" / "frames" / "00000.array_record"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] + bytes(99) + whole[len(whole) // 2 + 99 :])
    found = [frames_of(sample, 4) for sample in read_benchmark(tmp_path / "out")][:16]
    assert any(isinstance(one, str) and "00000.array_record cannot be read" in one for one in found)
    file.unlink()
    with pytest.raises(FlowjaxError, match="is not finished"):
        read_benchmark(Path(tmp_path / "out"))
