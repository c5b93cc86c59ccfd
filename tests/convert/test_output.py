"""OUT appears complete or not at all, whatever happens."""

import errno
import fcntl
import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest

import flowjax_convert.output
import flowjax_convert.run
from flowjax.errors import FlowjaxError
from flowjax.folders import new_directory
from flowjax.models.checkpoint import read_manifest
from flowjax_convert.run import convert as run_conversion
from flowjax_convert.verify import verify
from tests.convert.checkpoints import tensors_of

CHILD = """
import resource, signal, sys
from flowjax_convert.run import convert
from flowjax.errors import FlowjaxError
if sys.argv[3] == "limited":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
print("ready", flush=True)
try:
    convert(sys.argv[1], sys.argv[2], overwrite=sys.argv[3] == "overwrite", note="new")
except FlowjaxError as error:
    sys.exit(str(error))
print("done", flush=True)
"""


def child(tiny, out, mode="new"):
    """A process that has imported everything and is about to convert."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tiny), str(out), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_out_that_exists_is_refused(tiny, converted, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in converted.rglob("*")}
    with pytest.raises(FlowjaxError, match=r"model already exists; give --overwrite"):
        run_conversion(tiny, converted)
    assert before == {path: path.stat().st_mtime_ns for path in converted.rglob("*")}


def test_overwrite_replaces_a_model(tiny, tmp_path):
    run_conversion(tiny, tmp_path / "out", note="old")
    (tmp_path / "out" / "stale").touch()
    run_conversion(tiny, tmp_path / "out", note="new", overwrite=True)
    assert read_manifest(tmp_path / "out").note == "new"
    assert not (tmp_path / "out" / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_directory_is_taken(tiny, tmp_path, overwrite):
    (tmp_path / "out").mkdir()
    run_conversion(tiny, tmp_path / "out", overwrite=overwrite)
    assert not verify(tiny, tmp_path / "out").differences


def test_a_link_stays_and_what_it_points_to_is_replaced(tiny, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for note in ("old", "new"):
        run_conversion(tiny, tmp_path / "link", note=note, overwrite=True)
        assert read_manifest(tmp_path / "out").note == note
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]
    assert (tmp_path / "link").is_symlink()


def test_overwrite_replaces_nothing_else(tiny, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for name in ("home", "file", "link"):
        with pytest.raises(FlowjaxError, match=name):
            run_conversion(tiny, tmp_path / name, overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_failed_overwrite_keeps_the_old_model(tiny, tmp_path, monkeypatch):
    run_conversion(tiny, tmp_path / "out", note="old")

    def fail(*_):
        raise OSError("broken")

    monkeypatch.setattr(flowjax_convert.run, "write_parameters", fail)
    with pytest.raises(FlowjaxError, match="broken"):
        run_conversion(tiny, tmp_path / "out", note="new", overwrite=True)
    assert read_manifest(tmp_path / "out").note == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_parent_that_is_a_file(refused, tmp_path, source):
    (source / "notes.txt").touch()
    refused("notes.txt is a file", out=source / "notes.txt" / "out")
    refused("notes.txt is a file", out=source / "notes.txt" / "deep" / "out")


def test_parents_are_created_and_removed_again(tiny, tmp_path, monkeypatch):
    run_conversion(tiny, tmp_path / "a" / "b" / "out")
    assert not verify(tiny, tmp_path / "a" / "b" / "out").differences
    monkeypatch.setattr(flowjax_convert.run, "write_parameters", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_conversion(tiny, tmp_path / "c" / "d" / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


def test_too_little_space_is_an_early_error(refused, monkeypatch):
    usage = flowjax_convert.output.shutil.disk_usage("/")._replace(free=10**6)
    monkeypatch.setattr(flowjax_convert.output.shutil, "disk_usage", lambda _: usage)
    refused("it needs 0.1 GB", "0.0 GB left")


def test_write_that_fails_midway_leaves_nothing(tiny, tmp_path):
    """A limit on the size of a file stands for a full disk."""
    process = child(tiny, tmp_path / "out", "limited")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot be written" in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_an_exception_or_interrupt_leaves_nothing(tmp_path):
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), new_directory(tmp_path / "out", "flowjax.json") as partial:
            (partial / "half").write_text("half")
            raise error
        assert not list(tmp_path.iterdir())


def test_leftovers_of_this_out_only_are_removed(tmp_path):
    mine = [tmp_path / ".o[u]t.partial-abcdefgh", tmp_path / ".o[u]t.old-abcdefgh"]
    others = [tmp_path / ".ou.partial-abcdefgh", tmp_path / ".o[u]t.partial", tmp_path / "o"]
    for path in mine + others:
        path.mkdir()
        (path / "file").touch()
    with new_directory(tmp_path / "o[u]t", "flowjax.json") as partial:
        (partial / "whole").touch()
    assert not any(path.exists() for path in mine)
    assert all(path.exists() for path in others)
    assert (tmp_path / "o[u]t" / "whole").exists()


def test_old_model_comes_back_if_its_replacement_never_arrived(tiny, tmp_path):
    run_conversion(tiny, tmp_path / "out", note="old")
    (tmp_path / "out").rename(tmp_path / ".out.old-abcdefgh")
    with pytest.raises(ValueError, match="stop"), new_directory(tmp_path / "out", "flowjax.json"):
        raise ValueError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert read_manifest(tmp_path / "out").note == "old"


def test_two_runs_for_one_out(tmp_path):
    with new_directory(tmp_path / "out", "flowjax.json") as partial:
        (partial / "first").touch()
        message = "another process is writing it"
        with (
            pytest.raises(FlowjaxError, match=message),
            new_directory(tmp_path / "out", "flowjax.json"),
        ):
            raise AssertionError
    assert (tmp_path / "out" / "first").exists()


def test_a_run_is_not_disturbed_between_taking_the_old_away_and_putting_the_new_there(tmp_path):
    old = tmp_path / ".out.old-abcdefgh"
    with new_directory(tmp_path / "out", "flowjax.json"):
        old.mkdir()
        (old / "flowjax.json").touch()
        with (
            pytest.raises(FlowjaxError, match="another process is writing it"),
            new_directory(tmp_path / "out", "flowjax.json"),
        ):
            raise AssertionError
        assert old.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", [1, 2])
def test_a_directory_that_cannot_be_replaced_stays(tmp_path, monkeypatch, call):
    (tmp_path / "out" / "old").mkdir(parents=True)
    rename, calls = os.rename, []

    def failing(*paths):
        calls.append(paths)
        if len(calls) == call:
            raise OSError(errno.EACCES, "Permission denied")
        rename(*paths)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(PermissionError), new_directory(tmp_path / "out", "old") as partial:
        (partial / "new").touch()
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found == {"out", "out/old"}


def test_a_parent_that_cannot_be_made_leaves_no_other(tmp_path, monkeypatch):
    mkdir = os.mkdir

    def failing(path, *mode):
        if str(path).endswith("b") and os.path.isdir(os.path.dirname(path)):
            raise OSError(errno.ENOSPC, "No space left on device")
        mkdir(path, *mode)

    monkeypatch.setattr(os, "mkdir", failing)
    with (
        pytest.raises(FlowjaxError, match="No space left"),
        new_directory(tmp_path / "a" / "b" / "out", "flowjax.json"),
    ):
        raise AssertionError
    assert not list(tmp_path.iterdir())


def test_without_locks_a_directory_that_may_be_in_use_stays(tmp_path, monkeypatch):
    def absent(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", absent)
    (tmp_path / ".out.partial-abcdefgh").mkdir()
    with new_directory(tmp_path / "out", "flowjax.json") as partial:
        (partial / "whole").touch()
    assert (tmp_path / "out" / "whole").exists()
    assert (tmp_path / ".out.partial-abcdefgh").exists()


def check_killed(tiny, tmp_path, delay, mode):
    """Kill a conversion after `delay` seconds; no reader sees a partial OUT, a rerun finishes."""
    out = tmp_path / "out"
    if mode == "overwrite":
        run_conversion(tiny, out, note="old")
    process = child(tiny, out, mode)
    killer = threading.Timer(delay, process.kill)
    killer.start()
    while process.poll() is None:
        check_visible(tiny, out)
        time.sleep(0.002)
    killer.join()
    process.communicate()
    check_visible(tiny, out)
    finished = out.exists() and read_manifest(out).note == "new"
    if not finished:
        process = child(tiny, out, mode)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert read_manifest(out).note == "new"
    assert not verify(tiny, out).differences
    leftovers = {path.name for path in tmp_path.iterdir()} - {"out"}
    assert not leftovers or finished  # killed between its last two steps: the next run removes it
    return finished


def check_visible(tiny, out):
    """Whatever is at OUT is complete; a rename may take it away while it is being looked at."""
    try:
        names = {path.name for path in out.iterdir()}
        fields = json.loads((out / "flowjax.json").read_text())
        parameters = {path.name for path in (out / "params").iterdir()}
    except FileNotFoundError as error:
        still = out.exists() and not (out / "flowjax.json").exists()
        assert not still, f"{error.filename} is missing from a visible model"
        return
    assert {"flowjax.json", "params", "config.json", "tokenizer.json"} <= names
    assert {path.replace("/", ".") for path in fields["dtype"]} <= parameters
    assert "commit_success.txt" in parameters or "_METADATA" in parameters


@pytest.mark.parametrize("mode", ["new", "overwrite"])
@pytest.mark.parametrize("delay", [0.05, 0.2])
def test_killed_runs(tiny, tmp_path, delay, mode):
    check_killed(tiny, tmp_path, delay, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["new", "overwrite"])
def test_killed_at_twenty_random_moments(tiny, tmp_path, mode):
    rng = random.Random(0)
    ends = []
    for index in range(20):
        place = tmp_path / str(index)
        place.mkdir()
        ends.append(check_killed(tiny, place, rng.uniform(0, 0.5), mode))
    assert not all(ends)


def test_child_converts_when_not_killed(tiny, tmp_path):
    process = child(tiny, tmp_path / "out")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "done\n", "")
    assert not verify(tiny, tmp_path / "out").differences
    assert len(verify(tiny, tmp_path / "out").tensors) < len(tensors_of(tiny / "model.safetensors"))
