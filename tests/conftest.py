import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "flowjax",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("flowjax")

os.environ.setdefault("JAX_PLATFORMS", "cpu")


def pytest_addoption(parser):
    parser.addoption(
        "--oracle-dir",
        type=Path,
        action="append",
        help="a folder of reference values; default: those in tests/oracle/data",
    )


def pytest_configure(config):
    cache = Path(config.rootpath) / ".cache" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture(scope="session")
def pllava_oracle() -> Path:
    return Path(__file__).parent / "oracle" / "data" / "pllava"
