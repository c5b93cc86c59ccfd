"""Which `ptxas` is asked, and which is refused."""

import jax
import pytest

from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention import assembler, pruned_attention
from tests.kernels.cases import problem


@pytest.fixture
def ptxas(tmp_path, monkeypatch):
    """Puts a `ptxas` of some release first in PATH."""

    def put(release: str):
        path = tmp_path / release / "ptxas"
        path.parent.mkdir()
        text = f"ptxas: NVIDIA (R) Ptx optimizing assembler\\nCuda tools, release 0, V{release}"
        path.write_text(f"#!/bin/sh\nprintf '{text}\\n'\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent), prepend=":")
        return path

    return put


@pytest.mark.parametrize("release", ["12.8.61", "12.8.93", "12.9.41"])
def test_a_compiler_that_miscompiles_is_refused_by_name(ptxas, release, monkeypatch):
    path = ptxas(release)
    assert f"ptxas {release} ({path}) miscompiles" in assembler.refusal()

    class H100:
        compute_capability = "9.0"

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [H100()])
    given = problem(40, groups=3, width=64)
    query, key, value, query_position, key_position = given.arrays("bfloat16")
    with pytest.raises(FlowjaxError, match=r"12\.8\.0 to before 12\.9\.1"):
        pruned_attention(
            query,
            key,
            value,
            query_position=query_position,
            key_position=key_position,
            blocks=given.blocks(128, 128),
            implementation="mosaic_gpu",
        )


@pytest.mark.parametrize("release", ["12.6.85", "12.9.86", "13.0.88", "13.5.37"])
def test_others_are_not(ptxas, release):
    path = ptxas(release)
    assert assembler.find() == path
    assert assembler.refusal() is None


def test_without_any_nothing_is_refused(monkeypatch, tmp_path):
    """XLA says then that it finds none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(assembler, "SYSTEM", tmp_path / "ptxas")
    monkeypatch.setattr(assembler, "WHEELS", ())
    assert assembler.find() is None
    assert assembler.refusal() is None


def test_one_that_does_not_say_what_it_is_is_not_refused(tmp_path):
    silent = tmp_path / "ptxas"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    assert assembler.version(silent) is None
