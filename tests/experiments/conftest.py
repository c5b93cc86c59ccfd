import pytest

from tests.cli.conftest import flowjax
from tests.experiments.answering import write_answering_model, write_benchmark

__all__ = ["flowjax"]


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory):
    return write_benchmark(tmp_path_factory.mktemp("bench") / "shapes")


@pytest.fixture(scope="session")
def answering(tmp_path_factory):
    return write_answering_model(tmp_path_factory.mktemp("answering"))


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """Another model of the same architecture."""
    return write_answering_model(tmp_path_factory.mktemp("other"), seed=3)


@pytest.fixture(scope="session")
def swept(flowjax, answering, benchmark, tmp_path_factory):
    """A sweep of all of the benchmark's samples, as a run's folder."""
    out = tmp_path_factory.mktemp("swept") / "run"
    edges = ["--edges", "cross-frame", "--edges", "vql-to-ql"]
    result = flowjax(
        "sweep", answering, "--data", benchmark, "--samples", "all", "--out", out, "--window", 3,
        *edges,
    )  # fmt: skip
    assert result.code == 0, result.err
    return out
