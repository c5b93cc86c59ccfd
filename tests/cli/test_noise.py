"""Commands print what is theirs, and nothing that a library says on the side."""

import json
import os
import subprocess
import sys

import pytest

from flowjax.platforms import GOOGLE, plugins, tpus, without_tpu
from tests.random_checkpoint import NOTE

CHILD = """
import json, sys
from flowjax.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["flowjax", *map(str, words)]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop.code
"""


def test_only_what_a_command_says(checkpoint, asked, tmp_path):
    """With libtpu where it is installed, and the variables that notebooks, CI jobs and logs set.

    No home can be written to, and output goes into a file that takes ASCII only.
    """
    out = tmp_path / "mod\u00e8le"
    sweep = [*asked, "--out", tmp_path / "run", "--edges", "cross-frame", "--window", 3]
    sweep[1] = out
    commands = [["convert", checkpoint, out, "--note", NOTE], sweep, ["figures", tmp_path / "run"]]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"} | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "FORCE_COLOR": "1",
        "HOME": "/proc",
        "XDG_CACHE_HOME": "",
        "PYTHONIOENCODING": "ascii",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(commands, default=str)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.count("results.parquet") == 2
    assert done.stdout.isascii() and "\x1b" not in done.stdout


def device(bus, name, vendor, kind):
    (bus / name).mkdir()
    (bus / name / "vendor").write_text(vendor + "\n")
    (bus / name / "class").write_text(kind + "\n")


def test_which_platforms_jax_may_try(tmp_path, monkeypatch):
    pytest.importorskip("libtpu", reason="libtpu has wheels for Linux on x86-64 only")
    device(tmp_path, "network", GOOGLE, "0x020000")
    device(tmp_path, "other", "0x8086", "0xff0000")
    assert tpus(tmp_path) == 0
    device(tmp_path, "tpu", GOOGLE, "0xff0000")
    assert tpus(tmp_path) == 1

    monkeypatch.setattr("flowjax.platforms.tpus", lambda: 0)
    monkeypatch.setattr("flowjax.platforms.plugins", set)
    assert without_tpu({}) == "cpu"
    for name in ("JAX_PLATFORMS", "TPU_NAME", "JAX_FORCE_TPU_INIT"):
        assert without_tpu({name: "x"}) is None
    monkeypatch.setattr("flowjax.platforms.plugins", lambda: {"xla_cuda13"})
    assert without_tpu({}) in ("cpu", "cuda,cpu")
    monkeypatch.setattr("flowjax.platforms.plugins", lambda: {"another"})
    assert without_tpu({}) is None
    monkeypatch.setattr("flowjax.platforms.plugins", set)
    monkeypatch.setattr("flowjax.platforms.tpus", lambda: 4)
    assert without_tpu({}) is None


def test_plugins_are_found_by_module_and_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "jax_plugins" / "xla_cuda99").mkdir(parents=True)
    points = tmp_path / "made-1.dist-info" / "entry_points.txt"
    points.parent.mkdir()
    points.write_text("[jax_plugins]\nmade = packages.made_plugin\n")
    (points.parent / "METADATA").write_text("Metadata-Version: 2.1\nName: made\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert {"xla_cuda99", "made_plugin"} <= plugins()
