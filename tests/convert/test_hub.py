"""Checkpoints from a hub, served by a local stand-in; nothing here reaches the network."""

import os
import subprocess
import sys

import pytest

from flowjax.models.checkpoint import read_manifest
from flowjax_benchmarks.synthetic import write_checkpoint
from flowjax_convert.verify import verify
from tests.convert.checkpoints import shard
from tests.convert.hub_server import TOKEN, Hub, serve

CHILD = """
import sys
from flowjax_convert.run import convert
from flowjax.errors import FlowjaxError
try:
    convert(sys.argv[1], sys.argv[2], revision=sys.argv[3] or None)
except FlowjaxError as error:
    print(error)
    sys.exit(2)
"""
REPOSITORY = "lab/tiny-video"


@pytest.fixture(scope="module")
def repository(tiny, tmp_path_factory):
    """A sharded checkpoint with files that a conversion does not need."""
    path = shard(tiny, tmp_path_factory.mktemp("hub") / "repository", 2)
    (path / "README.md").write_text("a model")
    (path / "pytorch_model.bin").write_bytes(b"pickle")
    return path


@pytest.fixture
def hub(repository):
    with serve(Hub({REPOSITORY: repository})) as hub:
        yield hub


@pytest.fixture
def run(tmp_path):
    """Convert in a process of its own, with its own cache; returns exit status and output."""

    def run(hub, src=REPOSITORY, revision="", **environment):
        result = subprocess.run(
            [sys.executable, "-c", CHILD, src, str(tmp_path / "out"), revision],
            env={key: value for key, value in os.environ.items() if not key.startswith("HF_")}
            | {
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path / "cache"),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
            }
            | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in result.stderr
        if result.returncode:
            assert result.returncode == 2, result.stderr
            assert len(result.stdout.splitlines()) == 1
            assert not (tmp_path / "out").exists()
        return result.returncode, result.stdout

    return run


def test_download(hub, run, tmp_path, tiny):
    assert run(hub) == (0, "")
    assert not verify(tiny, tmp_path / "out").differences
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.name, manifest.source) == ("tiny-video", REPOSITORY)
    fetched = {path.rsplit("/", 1)[1] for _, path, _ in hub.requests if "/resolve/" in path}
    assert "config.json" in fetched and "model-00002-of-00002.safetensors" in fetched
    assert not fetched & {"README.md", "pytorch_model.bin"}


def test_offline_after_a_download(hub, run, tmp_path):
    assert run(hub) == (0, "")
    (tmp_path / "out").rename(tmp_path / "first")
    hub.requests.clear()
    assert run(hub, HF_HUB_OFFLINE="1") == (0, "")
    assert not hub.requests


def test_offline_without_a_download(hub, run):
    status, message = run(hub, HF_HUB_OFFLINE="1")
    assert status == 2
    assert REPOSITORY in message and "HF_HUB_OFFLINE" in message
    assert not hub.requests


def test_a_cut_connection_is_resumed(run, tmp_path, tiny_config, pllava_oracle):
    """The client keeps whole blocks of 10 MB of what it has received, so the file is larger."""
    path = tmp_path / "large"
    text = tiny_config["text_config"] | {"vocab_size": 60_000}
    config = tiny_config | {"text_config": text, "vocab_size": 60_000}
    write_checkpoint(path, config, side_files=pllava_oracle)
    name = "model.safetensors"
    size = (path / name).stat().st_size
    assert size > 30 * 10**6
    with serve(Hub({REPOSITORY: path})) as hub:
        hub.cut[name] = size - 10**6
        status, message = run(hub)
        if status:  # the client gave up; a second run goes on
            assert REPOSITORY in message
            assert run(hub) == (0, "")
        asked = [kept for method, path, kept in hub.requests if method == "GET" and name in path]
    assert asked[0] is None
    assert len(asked) == 2
    assert 10**7 < int(asked[1].removeprefix("bytes=").split("-")[0]) < size
    assert not verify(path, tmp_path / "out").differences


def test_a_revision(hub, run, tmp_path, tiny):
    assert run(hub, revision="main") == (0, "")
    assert read_manifest(tmp_path / "out").overrides == {"revision": "main"}


def test_a_wrong_revision(hub, run):
    status, message = run(hub, revision="v9")
    assert status == 2
    assert REPOSITORY in message and "'v9' does not exist" in message and "--revision" in message


def test_no_such_repository(hub, run):
    status, message = run(hub, "lab/nothing")
    assert status == 2
    assert "lab/nothing: no such repository" in message and hub.url in message


def test_a_private_repository(hub, run):
    hub.private.add(REPOSITORY)
    status, message = run(hub)
    assert status == 2
    assert REPOSITORY in message and "HF_TOKEN" in message
    assert run(hub, HF_TOKEN=TOKEN) == (0, "")


def test_a_gated_repository(hub, run):
    hub.gated.add(REPOSITORY)
    status, message = run(hub)
    assert status == 2
    assert REPOSITORY in message and "access is restricted" in message


def test_a_server_that_fails(hub, run):
    hub.broken.add(REPOSITORY)
    status, message = run(hub)
    assert status == 2
    assert REPOSITORY in message and "500" in message and "HF_ENDPOINT" in message


def test_no_connection(hub, run):
    hub.url = "http://127.0.0.1:9"
    status, message = run(hub)
    assert status == 2
    assert REPOSITORY in message and hub.url in message and "connection" in message


def test_only_pickle_in_the_repository(hub, run, repository, tmp_path):
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for path in repository.iterdir():
        if path.suffix != ".safetensors" and "index" not in path.name:
            (pickled / path.name).write_bytes(path.read_bytes())
    hub.repositories["lab/pickled"] = pickled
    status, message = run(hub, "lab/pickled")
    assert status == 2
    assert "lab/pickled" in message and "pytorch_model.bin" in message
    assert "safe_serialization=True" in message
