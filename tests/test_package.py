"""The built wheel, installed into a clean environment and run."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "flowjax",
    "convert/flowjax_convert",
    "experiments/flowjax_experiments",
    "benchmarks/flowjax_benchmarks",
)


def run(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    return next(folder.glob("flowjax_videollm-*.whl"))


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert all(name.startswith("flowjax") for name in names)
    modules = {name for name in names if name.endswith(".py")}
    assert modules == {
        path.relative_to(folder).as_posix()
        for package in PACKAGES
        for folder in [(ROOT / package).parent]
        for path in (ROOT / package).rglob("*.py")
    }
    metadata = next(name for name in names if name.endswith("METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    for extra in ("cuda", "tpu", "test"):
        assert f"Provides-Extra: {extra}\n" in text


@pytest.mark.parametrize("locked", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_wheel_runs_in_a_clean_environment(wheel, tmp_path, locked):
    """With every dependency installed from the lock; or, quicker, with those that are here."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    lock = ["-r", ROOT / "requirements.lock"] if locked else []
    run(python, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", *lock, wheel)
    if not locked:
        (site,) = home.glob("lib/python*/site-packages")
        # A path in a .pth file; the .pth file of an editable flowjax there is not read.
        (site / "here.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = home / "bin" / "flowjax"
    assert "sweep" in run(command, "--help", cwd=tmp_path, env=clean)
    words = ("demo", "--out", "run", "--per-task", "1")
    assert "video model" in run(command, *words, cwd=tmp_path, env=clean)
    assert (tmp_path / "run" / "pair.png").is_file()
    where = run(python, "-c", "import flowjax; print(flowjax.__file__)", cwd=tmp_path, env=clean)
    assert str(home) in where
    if locked:
        run(python, "-m", "pip", "check", cwd=tmp_path, env=clean)


def test_the_locks_name_no_cuda_build():
    for name in ("requirements.lock", "requirements-test.lock"):
        lines = (ROOT / name).read_text().splitlines()
        assert len(lines) > 50
        assert not [line for line in lines if "cuda" in line or "nvidia" in line]
