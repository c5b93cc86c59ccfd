import gc
import os
import sys
from importlib.metadata import version
from pathlib import Path

import av  # noqa: F401 - after decord, its VP9 encoder does not open: they have libraries of one name
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
os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's threads would wait for a busy core
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
"""For XLA: most programs run once or twice, so that compiling them is what takes long."""
if version("jaxlib").startswith("0.10."):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"  # later ones end a process that gives it
os.environ.setdefault("XLA_FLAGS", FLAGS)

FIRST = ("test_package.py", "test_train_shapes.py", "test_demo.py")
"""Files of few tests that take long: begun last, one worker would be left alone with them."""


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


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(scope="module", autouse=True)
def release_programs():
    """Thousands of compiled programs in one process exceed its memory maps, and it crashes."""
    yield
    maps, limit = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
    if "jax" in sys.modules and maps.exists():
        with maps.open() as lines:
            if sum(1 for _ in lines) > int(limit.read_text()) // 3:
                sys.modules["jax"].clear_caches()
                gc.collect()  # programs in cycles are released only then


@pytest.fixture(scope="session")
def pllava_oracle() -> Path:
    return Path(__file__).parent / "oracle" / "data" / "pllava"
